"""`lorgnette tune`: a model and files of data to a tuned model, measured on rows that it never saw."""
