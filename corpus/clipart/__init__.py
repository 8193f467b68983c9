"""Makes the drawings of the corpus from the SVG files of Debian's package openclipart-svg."""
