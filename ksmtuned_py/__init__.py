"""Steers the kernel's memory merging (KSM) on KVM hosts, and says why."""

__version__ = "0.1.0"
