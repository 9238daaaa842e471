"""Floor 4: a piece of memory in the guest, through which its threads make system calls for us."""
