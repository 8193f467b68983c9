"""The parts of lmms-eval that lorgnette uses, as in version 0.7.3. A test compares it with an installed one."""
