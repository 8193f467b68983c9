"""What lorgnette uses of lmms-eval, as version 0.7.3 has it. A test compares it with an installed one."""
