"""A model of a host's mergeable memory and of ksmd's scan over it: exact page by page, kept as runs of equal pages."""
