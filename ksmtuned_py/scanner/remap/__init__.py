"""Sharing equal pages without KSM: the guest is stopped, and made to map a common copy over its own page."""
