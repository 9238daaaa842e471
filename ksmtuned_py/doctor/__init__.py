"""Finds what keeps memory from merging, on the host and in each guest. Facts are read once, and checks are pure."""
