"""Undoing: knobs put back as they were found, and merged memory given back to those who share it."""
