"""Who answers: one of our models, any model of transformers, or a server. `open_answerer` tells them apart."""
