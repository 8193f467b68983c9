"""HTML, SVG and thumbnails of every page: one base template, one palette, light and dark, offline, without scripts."""
