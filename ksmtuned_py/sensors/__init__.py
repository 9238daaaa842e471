"""Reads the host's memory, its pressure and its events. Functions parse_* are pure, and readers take a Door."""
