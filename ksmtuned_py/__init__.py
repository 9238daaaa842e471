"""Steers the kernel's memory merging (KSM) on KVM hosts, and says why."""

import os

__version__ = "0.1.0"

# Any installed package may bring a plugin for pydantic, which would then run in the daemon with all its rights.
# To look for one, the metadata of every package is read, too, which takes a tenth of the time of a start.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
