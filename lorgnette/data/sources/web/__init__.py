"""Web pages: archives and files of them, and the content of their markup in reading order."""
