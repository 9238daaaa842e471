"""Floor 2: stops a guest's threads, and lets them go. Only `ptrace.py` calls ptrace."""
