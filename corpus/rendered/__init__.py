"""Parts of the corpus whose pictures are rendered text: pages, signs, receipts, charts, tables, diagrams."""
