"""The model: settings, batches, and the VLM itself."""
