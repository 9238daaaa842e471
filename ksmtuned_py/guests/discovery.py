"""Finds the guests among the host's processes. Each look checks the new PIDs, and now and then all of them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.accounts import has_asked, read_account
from ksmtuned_py.guests.cgroups import parse_cgroup
from ksmtuned_py.guests.evidence import ASKED, COMMAND_LINE, FLAG, LASTING, LEAST_BYTES, kind_by_clue, kind_by_words
from ksmtuned_py.guests.followed import SPARE_DESCRIPTORS as SPARE_DESCRIPTORS
from ksmtuned_py.guests.followed import Followed, short_of_descriptors
from ksmtuned_py.guests.names import names_of
from ksmtuned_py.guests.obstacles import opted_out
from ksmtuned_py.guests.patience import Patience, unanswered
from ksmtuned_py.guests.process import Inside, ProcessFiles
from ksmtuned_py.guests.programs import full_name, may_be_guest, program_names, suspects
from ksmtuned_py.guests.rounds import Rounds
from ksmtuned_py.guests.slowlooks import SlowLooks
from ksmtuned_py.model import Guest, GuestKey, GuestKsm
from ksmtuned_py.sensors.pages import page_bytes
from ksmtuned_py.sensors.stat import Identity

T = TypeVar("T")

ACCOUNTS_PER_LOOK = 100
"""Accounts read at one look. One takes about 40 us (measured), and 500 guests are all read anew within five looks."""
SILENT_GUESTS_MAX = 64


class _Who(NamedTuple):
    """The command line and the cgroup, by which a process is known as a guest."""

    words: list[str]
    cgroup: str


class GuestFinder:
    """Finds the guests below a Door's proc. It keeps a descriptor on each of them, so it has to be closed."""

    def __init__(
        self,
        door: Door,
        patterns: Sequence[str] = (),
        mergeable: bool = True,
        rescan_seconds: float = 60,
        cgroup_patterns: Sequence[str] = (),
    ) -> None:
        """Take shell patterns of guests' names and cgroups; `mergeable` adds each process that asked for merging."""
        self._door = door
        self._patterns = tuple(patterns)
        self._cgroup_patterns = tuple(cgroup_patterns)
        self._mergeable = mergeable
        self._page_bytes = page_bytes(door)
        # One for each kind of process, so that whoever does not answer keeps only its own kind waiting.
        self._of_guests = Patience(SILENT_GUESTS_MAX)
        self._of_hypervisors = Patience()
        self._of_others = Patience()
        self._rounds = Rounds(rescan_seconds)
        self._own_pid = os.getpid() if os.path.realpath(door.root) == "/" else None  # means nothing elsewhere
        self._looks = 0
        self._seen: dict[int, Identity | None] = {}
        self._guests: dict[int, Followed] = {}
        self._suspects: dict[int, str] = {}
        self._small: set[int] = set()
        self._untold: set[int] = set()
        self._slow = SlowLooks(door, self._page_bytes)
        self._problems: list[str] = []

    @property
    def suspects(self) -> tuple[str, ...]:
        """Programs seen running that are known to write KSM's knobs."""
        return tuple(sorted(set(self._suspects.values())))

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems of the last look, as sentences."""
        return tuple(self._problems)

    @property
    def fresh(self) -> frozenset[GuestKey]:
        """The guests whose accounts were read at the last look."""
        return frozenset(kept.guest.key for kept in self._guests.values() if kept.read_at == self._looks)

    def find(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests by PID; `now_seconds` is monotonic. Accounts may be a few looks old when there are many guests."""
        self._looks += 1
        self._problems = []
        pids = {int(name) for name in self._door.names("proc") if name.isdecimal()} - {self._own_pid}
        for pid in self._seen.keys() - pids:
            self._forget(pid)
        self._check(self._oldest_accounts())
        due = self._rounds.due(pids, pids - self._seen.keys(), now_seconds)
        self._meet(due)
        self._read_accounts()
        if self._mergeable:
            self._enrol_mergeable(due - self._guests.keys())
        self._look_slowly(due, now_seconds)
        others = self._of_hypervisors.silent() + self._of_others.silent()
        self._problems += [*unanswered(self._of_guests.silent(), others), *short_of_descriptors(self._guests.values())]
        return tuple(self._guests[pid].guest for pid in sorted(self._guests))

    def heed(self, pids: Iterable[int]) -> bool:
        """Note freshly exec'ed PIDs that may be guests, so that the next `find` looks at them.

        Returns whether there are any.
        """
        matter = [pid for pid in pids if pid in self._guests or self.is_guest_program(pid)]
        self._rounds.again(matter)
        return bool(matter)

    def is_guest_program(self, pid: int) -> bool:
        """Whether the process's name is that of a hypervisor or a configured program.

        Reads one small file, without a wait.
        """
        return may_be_guest(ProcessFiles(self._door, pid).name(), self._patterns)

    def close(self) -> None:
        """Let go of all descriptors."""
        for pid in tuple(self._guests):
            self._drop(pid)

    def let_go(self) -> None:
        """Close the descriptors on the guests until the next look."""
        for kept in self._guests.values():
            kept.process.close()

    def _meet(self, pids: Iterable[int]) -> None:
        """Find out who these processes are.

        Known guests are asked again, for they may have exec'ed; where cgroups decide, all are, for they may have moved.
        """
        strangers: dict[int, Identity] = {}
        for pid in pids:
            identity = self._asked(ProcessFiles(self._door, pid).identity)
            again = self._cgroup_patterns or pid in self._guests or pid in self._small
            if identity and (again or identity != self._seen.get(pid)):
                strangers[pid] = identity
            elif identity is None:
                self._seen[pid] = None
        hypervisors = {pid for pid, identity in strangers.items() if may_be_guest(identity.comm, self._patterns)}
        known = strangers.keys() & self._guests.keys()
        for patience, some in (
            (self._of_guests, known),
            (self._of_hypervisors, hypervisors - known),
            (self._of_others, strangers.keys() - hypervisors - known),
        ):
            for pid, who in patience.ask(self._processes(some), self._who).items():
                self._judge(pid, strangers[pid], who)

    def _processes(self, pids: Iterable[int]) -> dict[int, ProcessFiles]:
        return {pid: ProcessFiles(self._door, pid) for pid in sorted(pids)}

    def _who(self, inside: Inside) -> _Who:
        cgroup = (parse_cgroup(inside.read("cgroup") or "") or "") if self._cgroup_patterns else ""
        return _Who(inside.words(), cgroup)

    def _judge(self, pid: int, identity: Identity, who: _Who) -> None:
        name, words = full_name(identity.comm, who.words), who.words
        known, self._seen[pid] = self._seen.get(pid), identity
        self._suspects.pop(pid, None)
        self._suspects.update((pid, suspect) for suspect in suspects(program_names(name, words)))
        self._small.discard(pid)
        kind, evidence = kind_by_words(name, words, who.cgroup, self._patterns, self._cgroup_patterns)
        if evidence == COMMAND_LINE and self._virtual_bytes(pid) < LEAST_BYTES:
            self._small.add(pid)  # a QEMU that has no memory yet, or the sudo that starts it
        elif kind:
            self._adopt(pid, identity, kind, name, words, evidence)
        elif (kept := self._guests.get(pid)) and (identity != known or LASTING.isdisjoint(kept.guest.evidence)):
            self._drop(pid)

    def _virtual_bytes(self, pid: int) -> int:
        sizes = self._asked(ProcessFiles(self._door, pid).sizes_pages)
        return sizes[0] * self._page_bytes if sizes else 0

    def _enrol_mergeable(self, pids: Iterable[int]) -> None:
        strangers = self._processes(pid for pid in pids if self._seen.get(pid))

        def asked(inside: Inside) -> tuple[GuestKsm | None, list[str]]:
            account = self._account(inside)
            return account, inside.words() if has_asked(account) else []

        for pid, (account, words) in self._of_others.ask(strangers, asked).items():
            if account is None or account.mergeable is None:
                self._untold.add(pid)
            if has_asked(account) and (identity := self._seen.get(pid)):
                self._adopt(pid, identity, "mergeable", full_name(identity.comm, words), words, ASKED)
                self._take(pid, account)

    def _look_slowly(self, due: Iterable[int], now_seconds: float) -> None:
        """Find guests by what is expensive to read: open virtual machines, and mappings that may merge."""
        self._slow.queue(pid for pid in due if self._seen.get(pid) and self._is_open(pid))
        for pid, clue in self._slow.look(now_seconds, self._untold.__contains__).items():
            identity, kept = self._seen.get(pid), self._guests.get(pid)
            if identity is None or not self._is_open(pid):
                continue
            name = full_name(identity.comm, clue.words)
            kind, evidence = kind_by_clue(name, clue)
            if kind:
                self._adopt(pid, identity, kind, name, clue.words, *evidence)
            elif kept and clue.is_flagged is False and not has_asked(kept.guest.ksm):
                self._drop(pid)

    def _is_open(self, pid: int) -> bool:
        """Whether a slow look may change the answer: for no guest so far, or a guest by a flag that may go."""
        return pid not in self._guests or FLAG in self._guests[pid].guest.evidence

    def _account(self, inside: Inside) -> GuestKsm | None:
        return self._asked(partial(read_account, inside, self._page_bytes))

    def _adopt(self, pid: int, identity: Identity, kind: str, name: str, words: Sequence[str], *evidence: str) -> None:
        """List a process as a guest, unless its PID is another's by now, or it has no memory of its own."""
        names = names_of(kind, words)
        obstacles = opted_out(kind, words)
        called = names.name or f"{name or identity.comm}-{pid}"
        kept = self._guests.get(pid)
        if kept and kept.guest.start_ticks == identity.start_ticks:
            kept.guest = replace(
                kept.guest,
                name=called,
                aliases=names.aliases,
                kind=kind,
                uuid=names.uuid,
                evidence=evidence,
                obstacles=obstacles,
            )
            return
        self._drop(pid)
        guest = Guest(
            pid=pid,
            start_ticks=identity.start_ticks,
            name=called,
            kind=kind,
            evidence=evidence,
            aliases=names.aliases,
            uuid=names.uuid,
            obstacles=obstacles,
        )
        kept = self._guests[pid] = Followed(ProcessFiles(self._door, pid), guest)
        kept.hold()
        if self._asked(kept.process.identity) != identity:
            self._forget(pid)  # another process by now: the next look meets it
        elif not self._lives(kept):
            self._drop(pid)

    def _oldest_accounts(self) -> list[Followed]:
        return sorted(self._guests.values(), key=lambda kept: kept.asked_at)[:ACCOUNTS_PER_LOOK]

    def _check(self, guests: Iterable[Followed]) -> None:
        """Drop the guests that ended. A PID that is still listed is met anew: a zombie, or another process."""
        for kept in guests:
            if not self._lives(kept):
                self._forget(kept.process.pid)

    def _lives(self, kept: Followed) -> bool:
        return bool(self._asked(partial(kept.is_alive, self._page_bytes)))

    def _read_accounts(self) -> None:
        """Read the accounts that were never read, and as many of the oldest as one look may cost."""
        never = [kept for kept in self._guests.values() if not kept.read_at]
        turn = {kept.process.pid: kept.process for kept in (*self._oldest_accounts(), *never)}
        for pid in turn:
            self._guests[pid].asked_at = self._looks
        for pid, account in self._of_guests.ask(turn, self._account).items():
            self._take(pid, account)

    def _take(self, pid: int, account: GuestKsm | None) -> None:
        """Keep the account that was just read, and drop a guest that no longer asks for merging."""
        if (kept := self._guests.get(pid)) is None:
            return
        kept.asked_at = kept.read_at = self._looks
        untold = account is None or account.mergeable is None
        if kept.guest.kind == "mergeable" and not has_asked(account) and not (untold and FLAG in kept.guest.evidence):
            self._drop(pid)
        elif account != kept.guest.ksm:
            kept.guest = replace(kept.guest, ksm=account)

    def _asked(self, question: Callable[[], T | None]) -> T | None:
        """The answer to a question; None for garbage, which is noted as a problem."""
        try:
            return question()
        except Garbage as error:
            self._problems.append(str(error))
            return None

    def _forget(self, pid: int) -> None:
        self._seen.pop(pid, None)
        self._suspects.pop(pid, None)
        self._small.discard(pid)
        self._untold.discard(pid)
        self._slow.forget(pid)
        self._drop(pid)

    def _drop(self, pid: int) -> None:
        if kept := self._guests.pop(pid, None):
            kept.process.close()
