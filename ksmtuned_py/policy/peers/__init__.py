"""The managers before this one, as they reckoned: to compare with them, and to move away from them."""
