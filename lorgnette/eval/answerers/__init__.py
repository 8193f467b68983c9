"""Models that are measured: ours, any model of transformers, or a server. `open_answerer` tells them apart."""
