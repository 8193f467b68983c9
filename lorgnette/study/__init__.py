"""Studies: questions of design answered by training cells that differ in declared settings alone, measured alike."""
