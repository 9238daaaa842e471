"""What keeps memory from merging, on the host and in each guest: facts are read once, and each check is pure."""
