"""What the tests stand on: fake and captured trees, real processes, real guests, and the one real KSM."""
