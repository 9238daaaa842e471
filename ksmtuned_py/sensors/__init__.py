"""What the host itself says: memory, pressure, events. parse_* are pure; readers take a Door."""
