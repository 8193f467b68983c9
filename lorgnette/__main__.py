"""`python -m lorgnette`: the command line, where its script is not on the path."""

from lorgnette.cli import main

main()
