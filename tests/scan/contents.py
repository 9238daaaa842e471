"""Contents that all guests of the tests have in common."""

import random

PAGE = 4096
_BLOCK = random.Random("equal").randbytes(2 * PAGE)


def equal_page(number: int) -> bytes:
    """Returns a page that differs from that of any other number; to make it costs next to nothing."""
    place = number % PAGE
    return number.to_bytes(8, "little") + _BLOCK[place : place + PAGE - 8]
