"""Sources: a file for each kind of row that samples are read from."""
