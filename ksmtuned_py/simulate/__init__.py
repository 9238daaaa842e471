"""Runs policies on the model of ksmd, for hosts and days that nobody has at hand."""
