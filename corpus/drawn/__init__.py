"""Parts of the corpus whose pictures are drawings, and scenes composed of them."""
