"""Readers of files and values that sources share: where files are found, and rows and images read from them."""
