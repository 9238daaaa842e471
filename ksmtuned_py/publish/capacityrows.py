"""The metrics of how many more guests fit."""

from collections.abc import Callable

from ksmtuned_py.policy.capacity import Outlook
from ksmtuned_py.publish.rows import Told, gauge


def _of_answer(read: Callable[[Outlook], float]) -> Callable[[Told], float | None]:
    def value(told: Told) -> float | None:
        found = told.totals.capacity
        return read(found) if found else None

    return value


CAPACITY_ROWS = (
    gauge(
        "capacity_guests",
        "How many more guests like the median one fit, with a chance of 1 % that memory runs out within 24 h",
        _of_answer(lambda found: found.guests),
    ),
    gauge(
        "capacity_exceeded_chance_ratio",
        "Chance that memory runs out within 24 h, with no guest more",
        _of_answer(lambda found: found.chance_now),
    ),
    gauge(
        "capacity_record_seconds",
        "Time covered by the record on which the capacity rests",
        _of_answer(lambda found: found.record_seconds),
    ),
)
