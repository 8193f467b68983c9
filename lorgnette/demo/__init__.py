"""The main job: from random weights and drawings to a model that sees, in one command, with an honest report."""
