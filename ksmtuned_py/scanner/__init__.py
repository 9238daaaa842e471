"""The scan backend: finds and gives back equal memory from user space, on hosts whose kernel has no KSM."""
