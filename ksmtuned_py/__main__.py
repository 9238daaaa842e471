"""Starts the command line, for `python -m ksmtuned_py` and for the console command."""

import sys

from ksmtuned_py.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
