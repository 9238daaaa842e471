"""Puts the daemon together from a configuration, and takes it apart again in the right order."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ksmtuned_py.config import Config
from ksmtuned_py.configfile.load import Loaded, changed_keys
from ksmtuned_py.daemon import Daemon
from ksmtuned_py.door import Door
from ksmtuned_py.enforce import Enforcer
from ksmtuned_py.errors import KsmtunedError, NotRestored
from ksmtuned_py.guests.arrivals import open_arrivals
from ksmtuned_py.guests.switch import switch
from ksmtuned_py.machine import Machine, open_machine
from ksmtuned_py.policy import policy_of
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.publish.journal import Journal, Priority, Record
from ksmtuned_py.publish.metrics import Metrics
from ksmtuned_py.publish.notify import Notifier
from ksmtuned_py.publish.publisher import Publisher
from ksmtuned_py.publish.statusfile import Status, status_of
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.publish.web import Web
from ksmtuned_py.report import Report
from ksmtuned_py.restore import bring_to, put_back, wanted_of
from ksmtuned_py.runtime import Runtime
from ksmtuned_py.sensors.pressure import open_trigger
from ksmtuned_py.tick import tick
from ksmtuned_py.wait import Signals, Waiter

AT_START_ONLY = (
    "daemon.backend",
    "daemon.pressure_trigger_ms",
    "guests.name_patterns",
    "guests.cgroup_patterns",
    "guests.mergeable",
    "guests.libvirt_uri",
    "guests.max_guest_series",
    "kernel.",
)
"""Keys that a reload takes note of, but that take effect at the next start."""


@dataclass(frozen=True)
class Service:
    """What the admin asked for."""

    load: Callable[[], Loaded]
    """The configuration anew, with what the command line sets in it."""
    root: Path
    runtime: Runtime
    debug: bool = False

    def run(self, *, once: bool = False) -> None:
        """Until SIGTERM or SIGINT; raises the house's errors for what keeps it from starting."""
        config = self.load().config
        with ExitStack() as undo:
            # First in, last out: a signal at the start waits for the loop, and one at the end does not cut it short.
            signals = undo.enter_context(closing(Signals()))
            machine = undo.enter_context(open_machine(Door(str(self.root)), config))
            undo.enter_context(self.runtime.locked())
            running = _Running(self, machine, config, Notifier(), Journal(debug=self.debug))
            undo.callback(running.close)
            running.prepare()
            undo.callback(running.give_back)
            running.take_over()
            with running.waiter(signals) as waits:
                running.daemon(waits).run(once=once)


class _Running:
    """The parts of one running service, and how they start, reload and end."""

    def __init__(
        self, service: Service, machine: Machine, config: Config, notifier: Notifier, journal: Journal
    ) -> None:
        self.notifier = notifier
        self._service = service
        self._machine = machine
        self._host = machine.host
        self._config = config
        self._journal = journal
        self._metrics = Metrics(config.guests.max_guest_series)
        self._publisher = Publisher(self._metrics, journal, notifier, service.runtime.status_path)
        self._web: Web | None = None
        self._enforcer = Enforcer(partial(switch, machine.door, config.guests.libvirt_uri), journal.tell)

    def prepare(self) -> None:
        """Everything that can fail for the admin to see: the address, a leftover of a crash, the first look."""
        self._web = self._open_web(self._config)
        if not self._host.dry:
            self._restore()  # what a killed daemon left
        self._rehearse()

    def take_over(self) -> None:
        """From here on the knobs are ours."""
        if not self._host.dry:
            self._service.runtime.save_originals(self._host.backend.knobs())
            for sentence in bring_to(self._host, wanted_of(self._config.kernel)):
                self.warn(f"[kernel] is not in force: {sentence}")
        self.notifier.ready()

    @contextmanager
    def waiter(self, signals: Signals) -> Iterator[Waiter]:
        """The daemon's one wait, with whatever this kernel lets us wait for."""
        with ExitStack() as undo:
            stall_ms = self._config.daemon.pressure_trigger_ms
            here = self._machine.is_this_host
            pressure = open_trigger(self._machine.door, stall_ms) if stall_ms and here else None
            if pressure is not None:
                undo.callback(os.close, pressure)
            arrivals = open_arrivals(self.warn) if here else None
            if arrivals is not None:
                undo.enter_context(closing(arrivals))
            yield Waiter(
                signals,
                pressure=pressure,
                arrivals=arrivals,
                domains=self._machine.link,
                heed=self._machine.heed,
            )

    def daemon(self, waits: Waiter) -> Daemon:
        """The loop."""
        longest = self.notifier.watchdog_interval_seconds() or float("inf")
        return Daemon(self._host, self._config, waits, self, self.reload, longest)

    def publish(self, report: Report) -> None:
        """A tick was completed: the world is told, and the rules for guests are seen to."""
        self._publisher.publish(report)
        if self._machine.roster is not None and report.snapshot.backend == "kernel" and not self._host.dry:
            self._enforcer.consider(report.snapshot)
            self._machine.roster.switched_off = self._enforcer.switched_off

    def failed_tick(self, error: Exception) -> None:
        """A tick was not."""
        self._publisher.failed_tick(error)

    def reload(self, old: Config) -> Config:
        """The new configuration whole, or the old one whole; says which keys changed."""
        self.notifier.reloading()
        try:
            new = self._service.load().config
            if new.metrics != old.metrics:
                self._swap_web(new)
        except KsmtunedError as error:
            self.warn(f"reload refused, the old configuration stays: {error}")
            return old
        finally:
            self.notifier.ready()
        self._tell_changes(old, new)
        if new.daemon.mode != old.daemon.mode:
            self._change_mode(new)
        self._config = new
        if self._machine.roster is not None:
            self._machine.roster.settings = new.guests
        return new

    def give_back(self) -> None:
        """The knobs, as on_exit says; NotRestored names those that did not take."""
        self.notifier.stopping()
        if not self._host.dry:
            put_back(self._host, self._service.runtime, self._config.daemon.on_exit, self.warn)

    def close(self) -> None:
        """The web server and the status file away."""
        if self._web is not None:
            self._web.stop()
        self._publisher.close()

    def warn(self, sentence: str) -> None:
        """A sentence for the admin."""
        self._journal.tell(Record(Priority.WARNING, sentence))

    def _rehearse(self) -> None:
        """A tick without a write: what cannot be read or decided shows now, before the service counts as started."""
        dry, self._host.dry = self._host.dry, True
        try:
            tick(self._host, policy_of(self._config), Trend.begin(self._config))
        finally:
            self._host.dry = dry

    def _restore(self) -> None:
        """What does not take now is still owed: the saved values stay, and the next stop tries again."""
        try:
            put_back(self._host, self._service.runtime, "restore", self.warn)
        except NotRestored as error:
            self.warn(str(error))

    def _open_web(self, config: Config) -> Web | None:
        if not config.metrics.address:
            return None
        web = Web(config.metrics.address, self._metrics.registry, self._publisher.trouble)
        web.start()
        return web

    def _swap_web(self, new: Config) -> None:
        """The old one goes first, for the new address may overlap it; it comes back when the new one cannot be had."""
        if self._web is not None:
            self._web.stop()
            self._web = None
        try:
            self._web = self._open_web(new)
        except KsmtunedError:
            self._web = self._open_web(self._config)
            raise

    def _change_mode(self, new: Config) -> None:
        """From managing to observing the knobs go back first; the other way they are saved anew."""
        if new.daemon.mode == "observe":
            self._restore()
            self._host.dry = True
        else:
            self._host.dry = False
            self._service.runtime.save_originals(self._host.backend.knobs())

    def _tell_changes(self, old: Config, new: Config) -> None:
        changes = [
            f"{key} {before!r} -> {after!r}{' (at the next start)' if key.startswith(AT_START_ONLY) else ''}"
            for key, before, after in changed_keys(old, new)
        ]
        self._journal.tell(Record(Priority.INFO, f"reloaded: {', '.join(changes) or 'nothing changed'}"))


def look_once(root: Path, config: Config) -> Status:
    """One look without a daemon and without a write: what a daemon would see and decide now."""
    watching = config.model_copy(update={"daemon": config.daemon.model_copy(update={"mode": "observe"})})
    with open_machine(Door(str(root)), watching) as machine:
        report = tick(machine.host, policy_of(watching), Trend.begin(watching))
        return status_of(report, Totals().after(report))
