"""The data loader: reads, renders and packs what the plan names (`batches`), ahead of the model (`workers`)."""
