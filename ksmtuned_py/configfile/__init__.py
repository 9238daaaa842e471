"""Reads and writes the configuration's files, with the place of each mistake, and translates the old script's."""
