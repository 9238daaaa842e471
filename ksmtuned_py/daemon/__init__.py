"""The daemon: it opens the machine, goes from tick to tick, waits between two, and leaves all as it was found."""
