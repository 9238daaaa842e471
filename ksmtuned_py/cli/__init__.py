"""The command line: one file for each verb. Only here are errors printed and exit codes picked."""
