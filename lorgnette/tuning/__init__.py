"""`lorgnette tune`, which measures a tuned model on rows that it never saw, and `lorgnette.train`."""
