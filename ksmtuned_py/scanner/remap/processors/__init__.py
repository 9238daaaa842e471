"""Floor 1: the machine code that a stopped thread runs for us, for each kind of processor."""
