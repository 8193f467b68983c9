"""The main job: from two small backbones to a model that sees, in one command, with an honest report."""
