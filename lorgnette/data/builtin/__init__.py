"""The built-in corpus: public-domain drawings, and the tables that `corpus/` wrote about them."""
