"""Puts the daemon together from a configuration, and takes it apart again in the right order."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial
from pathlib import Path
from socket import socket

from ksmtuned_py.backends.zeroseed import ZeroSeed
from ksmtuned_py.config import Config
from ksmtuned_py.config.inforce import at_reload
from ksmtuned_py.configfile.load import Loaded, changed_keys
from ksmtuned_py.daemon.loop import Daemon
from ksmtuned_py.daemon.machine import Machine, Partners, ledger_of, open_machine, ways_of
from ksmtuned_py.daemon.merger import limits, merger_of
from ksmtuned_py.daemon.serving import Serving
from ksmtuned_py.daemon.standing import Stands
from ksmtuned_py.daemon.trial import why_not
from ksmtuned_py.daemon.wait import Signals, Waiter
from ksmtuned_py.door import Door
from ksmtuned_py.door.descriptors import Reserve, raise_limit
from ksmtuned_py.door.runtime import Runtime
from ksmtuned_py.errors import KsmtunedError, NotReloaded, NotRestored
from ksmtuned_py.hypervisor.enforce import Enforcer
from ksmtuned_py.hypervisor.switch import switch
from ksmtuned_py.model.record import Priority, Record
from ksmtuned_py.publish.findings import Findings
from ksmtuned_py.publish.journal import Journal
from ksmtuned_py.publish.listening import passed
from ksmtuned_py.publish.metrics import Metrics
from ksmtuned_py.publish.notify import Notifier
from ksmtuned_py.publish.publisher import Publisher
from ksmtuned_py.publish.reloadanswer import ReloadAnswer, write
from ksmtuned_py.report import Report
from ksmtuned_py.tick import rehearse
from ksmtuned_py.undo.hugereturns import returns_on
from ksmtuned_py.undo.originals import origin_of, save
from ksmtuned_py.undo.putback import put_back, sets_structural, take

MODEL = "model"
"""The runtime directory of a model, below the usual one, apart from what the host's own daemon keeps there."""

NOT_ROOT = "this user is not root: what guests of others have merged stays unknown, and is not given back one by one"


def serve(
    load: Callable[[], Loaded],
    door: Door,
    runtime: Runtime,
    doctor: Sequence[str] = (),
    *,
    debug: bool = False,
    looks: bool = False,
    once: bool,
) -> None:
    """Run the daemon until SIGTERM or SIGINT, or for one tick; raises a KsmtunedError when it cannot start.

    `load` reads the configuration anew, with what the command line sets in it. `doctor` are the words of the verb that
    looks at the same host. With `looks` the daemon goes without the lock, the status file and the address, which one
    that runs beside it, or is started later, needs.
    """
    given = None if looks else passed()  # before a descriptor of ours could be taken for it
    loaded = load()
    config = loaded.config
    if config.daemon.backend == "model":
        runtime, doctor = Runtime(runtime.directory / MODEL), ()
    merger_of(door, config)  # raises what would keep it from starting
    raise_limit()
    with ExitStack() as undo:
        # First in, last out: a signal at the start waits for the loop, and one at the end does not cut it short.
        signals = undo.enter_context(closing(Signals()))
        if not looks:
            undo.enter_context(runtime.locked())  # before anything is touched, or a worker started
        notifier = Notifier()
        publisher = _publisher(loaded, notifier, None if looks else runtime.status_path, debug=debug)
        switching = partial(switch, door, config.guests.libvirt_uri)
        enforcer = undo.enter_context(closing(Enforcer(switching, publisher.tell, ledger_of(runtime, door, config))))
        partners = Partners(pause=runtime.pause, switches=enforcer, say=publisher.warn)
        machine = undo.enter_context(open_machine(door, config, partners))
        undo.callback(publisher.withdraw)
        service = Service(load, runtime, machine, publisher, enforcer, notifier, None if looks else Findings(doctor))
        undo.callback(service.close)
        service.run(given, signals, undo, once=once)


def _publisher(loaded: Loaded, notifier: Notifier, status_path: Path | None, *, debug: bool) -> Publisher:
    """Make the publisher, which first tells what was odd about the configuration."""
    metrics = Metrics(loaded.config.guests.max_guest_series)
    publisher = Publisher(metrics, Journal(debug=debug), notifier, status_path)
    for sentence in loaded.warnings:
        publisher.warn(sentence)
    return publisher


class Service:
    """The running daemon with all its parts. It starts, reloads and ends them in order."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        runtime: Runtime,
        machine: Machine,
        publisher: Publisher,
        enforcer: Enforcer,
        notifier: Notifier,
        findings: Findings | None,
    ) -> None:
        """Take over what was opened. Without `findings` nothing is served, whatever the configuration says."""
        self.notifier = notifier
        self._load = load
        self._runtime = runtime
        self._machine = machine
        self._host = machine.host
        self._reserve = Reserve()
        self._publisher = publisher
        self._enforcer = enforcer
        self._serving = Serving(publisher, findings) if findings is not None else None
        self._origin = origin_of(machine.door, machine.host.backend.name)
        self._stands = Stands(machine.in_force, runtime, self._origin, publisher.stand)
        self._zeros, self._may_seed = ZeroSeed(), not sets_structural(self._config.kernel)
        self._huge = returns_on(machine.door, machine.host, publisher.inform)
        self._ways = ways_of(machine, self._config.guests.libvirt_uri, self._publisher.warn, notifier.goes_on)

    @property
    def _config(self) -> Config:
        return self._machine.in_force.config

    def run(self, given: socket | None, signals: Signals, undo: ExitStack, *, once: bool) -> None:
        """Start, and tick until told to stop. At the end of `undo` the knobs are given back."""
        self.open(given)
        self.prepare()
        undo.callback(self.give_back)
        self.take_over()
        with self.waiter(signals) as waits:
            self.daemon(waits).run(once=once)

    def open(self, given: socket | None) -> None:
        """Listen on the socket that systemd passes, or at the address; raises OtherAddress or AddressInUse."""
        if self._serving is not None:
            self._serving.open(self._config.metrics, given)

    def prepare(self) -> None:
        """Do what else can fail before the admin's eyes: put back what a crash left, and rehearse a tick."""
        if not self._host.dry:
            self._restore()  # knobs that a killed daemon left
        self._stands.tell(self._host.backend.knobs())
        rehearse(self._host, self._config)

    def take_over(self) -> None:
        """Save the knobs, bring [kernel] in force, and tell systemd that we are ready."""
        if not self._host.dry:
            save(self._runtime, self._origin, self._host, self._config.kernel)
            for sentence in take(self._ways, self._config.kernel):
                self._publisher.warn(f"[kernel] is not in force: {sentence}")
        if self._host.dry and (limit := limits(self._machine.door, self._config)):
            self._publisher.warn(limit)
        if os.geteuid() != 0 and self._machine.is_this_host:
            self._publisher.warn(NOT_ROOT)
        self.notifier.ready()

    def waiter(self, signals: Signals) -> AbstractContextManager[Waiter]:
        """Make the daemon's one wait, for a with block."""
        return self._machine.waiter(signals, self._publisher.warn, self._enforcer)

    def daemon(self, waits: Waiter) -> Daemon:
        """Make the loop."""
        longest = self.notifier.watchdog_interval_seconds() or float("inf")
        return Daemon(self._host, self._machine.in_force, waits, self, self.reload, longest)

    def publish(self, report: Report) -> None:
        """Tell the world of a completed tick, and have guests switched as the rules want."""
        if self._host.dry:
            self._stands.tell(report.snapshot.knobs)
        self._publisher.publish(report)
        steers = self._machine.roster is not None and not self._host.dry
        is_ksmd = steers and report.snapshot.backend == "kernel"
        if is_ksmd:
            self._enforcer.consider(report.snapshot)
        self._zeros.consider(report.snapshot, wanted=is_ksmd and self._may_seed)
        spare_bytes = report.trend.plenty.spare_bytes(self._config, report.decision) if steers else None
        self._publisher.note(self._huge.consider(report.snapshot, spare_bytes))

    def failed_tick(self, error: Exception) -> None:
        """Tell the world of a tick that raised this error."""
        self._publisher.failed_tick(error)

    def reload(self) -> None:
        """Put the whole new configuration in force, or keep the whole old one, and tell which keys changed."""
        began = time.monotonic()
        self.notifier.reloading()
        try:
            answer = self._reloaded(began)
        finally:
            self.notifier.ready()
        self._answer(answer)  # last, for with that the job of systemctl reload ends

    def _reloaded(self, began_seconds: float) -> ReloadAnswer:
        old = self._config
        try:
            loaded = self._load()
            self._take(loaded.config)
        except KsmtunedError as error:
            self._publisher.warn(f"reload refused, the old configuration stays: {error}")
            return ReloadAnswer(began_seconds=began_seconds, refused=str(error))
        return ReloadAnswer(began_seconds=began_seconds, told=self._tell_changes(old, loaded))

    def _answer(self, answer: ReloadAnswer) -> None:
        if self._serving is None:
            return
        try:
            write(self._runtime.answer_path, answer)
        except OSError as error:
            self._publisher.warn(f"{self._runtime.answer_path}: nobody is told of the reload: {error.strerror}")

    def give_back(self) -> None:
        """Put the knobs back as on_exit says; raises NotRestored, which names those that did not take."""
        self.notifier.stopping()
        for end in (self._enforcer.stop, self._huge.close, self._host.abort):
            end()
        self._close_web()
        self._machine.let_go()
        self._reserve.release()
        if not self._host.dry:
            put_back(self._ways, self._runtime, self._origin, self._config.daemon.on_exit)

    def close(self) -> None:
        """Close the web server, save the history, and release the descriptors that were set aside."""
        self._close_web()
        self._reserve.release()
        if self._serving is not None:
            self._serving.end()

    def _restore(self) -> None:
        """Put back what a killed daemon left. Knobs that do not take stay owed, and the next stop tries again."""
        try:
            put_back(self._ways, self._runtime, self._origin, "restore")
        except NotRestored as error:
            self._publisher.warn(str(error))

    def _close_web(self) -> None:
        if self._serving is not None:
            self._serving.close()

    def _take(self, new: Config) -> None:
        """Put a configuration in force, after trying all that may fail; raises NotReloaded with every reason.

        What was done for a trial is undone when anything fails.
        """
        mode, coming = self._config.daemon.mode, at_reload(self._config, new)
        with ExitStack() as undo:
            trials = [
                lambda: self._check_merger(coming),
                lambda: rehearse(self._host, coming),
                lambda: self._swap_web(coming, undo),
            ]
            reasons = [reason for trial in trials if (reason := why_not(trial))]
            if reasons:
                raise NotReloaded(reasons)
            if coming.daemon.mode != mode:
                self._change_mode(coming, undo)
            undo.pop_all()
        self._machine.in_force.take(new)
        self._stands.tell()

    def _check_merger(self, coming: Config) -> None:
        merger_of(self._machine.door, coming)
        if coming.daemon.mode == "manage" and self._host.backend.name == "none":
            raise NotReloaded(["what can merge here came after the start; a restart of the service takes it up"])

    def _change_mode(self, coming: Config, undo: ExitStack) -> None:
        """Begin to steer, or only to watch. First the knobs go back: ours, or those that a killed daemon left."""
        if coming.daemon.mode == "manage":
            self._host.steer()
            undo.callback(self._host.watch)
        put_back(self._ways, self._runtime, self._origin, "restore", quickly=True)
        self._stands.tell(self._host.backend.knobs())
        if coming.daemon.mode == "manage":
            save(self._runtime, self._origin, self._host, coming.kernel)
        else:
            self._host.watch()

    def _swap_web(self, new: Config, undo: ExitStack) -> None:
        if self._serving is not None:
            self._serving.swap(self._config.metrics, new.metrics, undo)

    def _tell_changes(self, old: Config, loaded: Loaded) -> str:
        """Tell which keys the new configuration changes, and which of them wait for the next start."""
        changed = {key for key, _, _ in changed_keys(old, self._config)}
        changes = [
            f"{key} {before!r} -> {after!r}{'' if key in changed else ' (at the next start)'}"
            for key, before, after in changed_keys(old, loaded.config)
        ]
        for sentence in loaded.warnings:
            self._publisher.warn(sentence)
        sentence = f"reloaded: {', '.join(changes) or 'nothing changed'}"
        self._publisher.tell(Record(Priority.INFO, sentence))
        return sentence
