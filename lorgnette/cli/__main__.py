"""`python -m lorgnette.cli`."""

from lorgnette.cli import main

main()
