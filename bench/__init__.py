"""Benchmarks on the real kernel: run them from the repository's root, as root."""
