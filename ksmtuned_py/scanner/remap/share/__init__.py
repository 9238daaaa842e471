"""Floor 5: the stores of merged pages, and how guests come to map them and get their own pages back."""
