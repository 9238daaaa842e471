"""The configuration's files: read, judged with the place of each mistake, written, and the old script's translated."""
