"""The configuration: what each key takes, its default, and what it is for. Pure; files are read in `configfile`."""

from ksmtuned_py.config.adaptive import Adaptive, ByNeed, Guards, Need
from ksmtuned_py.config.inforce import InForce
from ksmtuned_py.config.sections import (
    Config,
    Daemon,
    Fixed,
    GuestRule,
    Guests,
    Kernel,
    Metrics,
    Policy,
    Scan,
)

__all__ = [
    "Adaptive",
    "ByNeed",
    "Config",
    "Daemon",
    "Fixed",
    "Guards",
    "GuestRule",
    "Guests",
    "InForce",
    "Kernel",
    "Metrics",
    "Need",
    "Policy",
    "Scan",
]
