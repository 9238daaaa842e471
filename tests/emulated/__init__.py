"""Whole kernels in emulated machines; the modules named *_inside run in there, without pytest."""
