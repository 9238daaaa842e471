"""Tells the metrics what holds from tick to tick: the configuration in force, and knobs that were not put back."""

from collections.abc import Callable

from ksmtuned_py.config.inforce import InForce, fingerprint
from ksmtuned_py.door.runtime import Origin, Runtime
from ksmtuned_py.model import Knobs
from ksmtuned_py.publish.rows import Standing
from ksmtuned_py.undo.putback import not_restored


class Stands:
    """Keeps what holds up to date, and shows it."""

    def __init__(self, in_force: InForce, runtime: Runtime, origin: Origin, show: Callable[[Standing], None]) -> None:
        self._in_force = in_force
        self._runtime = runtime
        self._origin = origin
        self._show = show
        self._not_restored: int | None = None

    def tell(self, idle: Knobs | None = None) -> None:
        """Show what holds now.

        `idle` are the knobs as they are while no daemon steers. Without them the count of those that an earlier daemon
        has left stays, because what is saved by now is what this one found.
        """
        config = self._in_force.config
        if idle is not None:
            self._not_restored = not_restored(idle, self._runtime, self._origin, config.kernel)
        policy = config.policy.name
        self._show(
            Standing(
                config_hash=fingerprint(config),
                policy=policy,
                profile=config.adaptive.profile if policy == "adaptive" else "",
                knobs_not_restored=self._not_restored,
            )
        )
