"""Starts the command line, for `python -m ksmtuned_py` and for the console command."""

import sys
from signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal

if getsignal(SIGINT) is default_int_handler:  # Ctrl-C while we are loaded, until main handles it, is no traceback
    signal(SIGINT, SIG_DFL)

from ksmtuned_py.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
