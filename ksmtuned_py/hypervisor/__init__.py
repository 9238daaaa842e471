"""Talks to libvirt and QEMU: which guests there are, and taking one out of merging or in again."""
