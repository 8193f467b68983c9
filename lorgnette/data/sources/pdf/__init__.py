"""Pages of PDF files: drawn as pictures, and their text in reading order."""
