"""Puts knobs back as they were found, and gives merged memory back to those who share it."""
