"""Tells what was done and why: journal, metrics, status file, systemd."""
