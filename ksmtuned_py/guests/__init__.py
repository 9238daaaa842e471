"""Finds the guests, and knows what each is called, what it is made of, and whether it may merge."""
