"""`ksmtuned-py huge`: shows how merging lies in huge pages, and gives back those that save little."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from ksmtuned_py.cli.guests import find_guest
from ksmtuned_py.cli.options import add_config, add_runtime_dir, add_verb, load_config
from ksmtuned_py.cli.terminal import err, out, print_json
from ksmtuned_py.errors import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.model import Guest
    from ksmtuned_py.model.hugeplan import Portion, Survey
    from ksmtuned_py.undo.hugeback import HugeWays

    Surveys = dict[Guest, Survey]
    Problems = dict[Guest, str]


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "huge",
        run,
        "show the merged pages per huge page, and give huge pages back",
        "Makes split huge pages of guests whole again, those with the fewest merged pages first, as long as available "
        "memory stays above adaptive.need.wary_leave_percent. What is merged in them is copied. Ranges of which more "
        "than half is merged stay merged. ksmd has to rest, or it would split them again: ksmtuned-py pause. "
        "A guest that is stopped, locked into memory or being migrated is left alone.",
    )
    parser.add_argument("guest", nargs="?", metavar="GUEST", help="this guest only: its name, UUID or PID")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be given back")
    add_config(parser)
    add_runtime_dir(parser)
    parser.add_argument("--json", action="store_true", help="an object with the guests, for programs")


def run(args: Namespace) -> int:
    """Shows the ranges and gives them back; raises NotHuge or UnknownGuest. Returns FAILED when a guest has failed."""
    from ksmtuned_py.daemon.machine import kernel_machine
    from ksmtuned_py.door import Door
    from ksmtuned_py.undo.hugeback import NotHuge, huge_ways, kernel_refusal, obstacle, planned

    door, config = Door(), load_config(args).config
    if refusal := kernel_refusal(door):
        raise NotHuge(refusal)
    with kernel_machine(door, config, dry=True) as machine:
        guests = machine.host.observe().guests
        chosen = [find_guest(guests, args.guest)] if args.guest else list(guests)
        keep_bytes = round(machine.host.memory().base_bytes * config.adaptive.need.wary_leave_percent / 100)
        ways = huge_ways(door, machine.host, keep_bytes, _tell)
        if not args.dry_run and (problem := obstacle(ways)):
            raise NotHuge(f"{problem}; ksmtuned-py pause --for 1h stops it, --dry-run only looks")
        surveys, problems = _surveys(ways, chosen)
        most = planned(ways, surveys)
        done = {} if args.dry_run else _give_back(ways, surveys, most, problems)
    if args.json:
        _print_json(surveys, problems, most, done)
    else:
        _print(surveys, most, done)
    for guest, problem in problems.items():
        _tell(f"{guest.name}: {problem}")
    return FAILED if problems else 0


def _surveys(ways: "HugeWays", guests: "Sequence[Guest]") -> "tuple[Surveys, Problems]":
    from ksmtuned_py.undo.hugeback import NotHuge, survey

    found: Surveys = {}
    problems: Problems = {}
    for guest in guests:
        try:
            found[guest] = survey(ways, guest)
        except NotHuge as error:
            problems[guest] = str(error)
    return found, problems


def _give_back(ways: "HugeWays", surveys: "Surveys", most: int, problems: "Problems") -> "dict[Guest, Portion]":
    """Give back guest by guest. What a guest could not get is noted in `problems`."""
    from ksmtuned_py.undo.hugeback import NotHuge, give_huge_back

    done: dict[Guest, Portion] = {}
    for guest, survey in surveys.items():
        if not survey.ranges(most):
            continue
        try:
            for portion in give_huge_back(ways, guest, most):
                done[guest] = portion
                if portion.problem:
                    problems[guest] = portion.problem
        except NotHuge as error:
            problems[guest] = str(error)
    return done


def _print(surveys: "Surveys", most: int, done: "dict[Guest, Portion]") -> None:
    from ksmtuned_py.cli.columns import aligned
    from ksmtuned_py.model.hugeplan import BINS, together

    if not surveys:
        out().print("no guest could be looked at")
        return
    everything = together(surveys.values())
    bounds = [str(int(share * everything.range_pages)) for share in BINS]
    rows = [("GUEST", "HUGE", *bounds, "LEFT", "MERGED")]
    named = [*((guest.name, survey) for guest, survey in surveys.items()), ("all", everything)]
    rows += [_row(name, survey) for name, survey in (named if len(surveys) > 1 else named[:1])]
    out().print(f"ranges by their merged pages, of {everything.range_pages} at most:")
    for number, line in enumerate(aligned(rows, {"GUEST"})):
        out().print(line, style=None if number else "bold")
    out().print(f"\n{_plan(everything, most)}")
    for guest, portion in done.items():
        out().print(f"{guest.name}: {_result(portion, everything.range_pages)}")


def _row(name: str, survey: "Survey") -> tuple[str, ...]:
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
    from ksmtuned_py.units import human_bytes

    merged = human_bytes(survey.merged_pages * OWN_PAGE_BYTES)
    return (name, str(survey.huge), *map(str, survey.histogram()), str(survey.left), merged)


def _plan(survey: "Survey", most: int) -> str:
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
    from ksmtuned_py.units import human_bytes

    if most < 0:
        return "nothing can be given back: available memory is below what the host is to keep"
    huge = human_bytes(survey.ranges(most) * survey.range_pages * OWN_PAGE_BYTES)
    paid = human_bytes(survey.paid_pages(most) * OWN_PAGE_BYTES)
    return (
        f"{survey.ranges(most)} ranges ({huge}) have at most {most} merged pages: to make them huge pages again costs "
        f"{paid} of merged memory"
    )


def _result(portion: "Portion", range_pages: int) -> str:
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
    from ksmtuned_py.units import human_bytes

    huge = human_bytes(portion.given * range_pages * OWN_PAGE_BYTES)
    paid = human_bytes(portion.paid * OWN_PAGE_BYTES)
    others = f", {portion.failed} failed" if portion.failed else ""
    others += f", {portion.left} had changed" if portion.left else ""
    cpu = f"{portion.cpu_seconds:.2f} CPU-s"
    return f"{portion.given} huge pages ({huge}) are back for {paid} of merged memory{others}; {cpu}"


def _print_json(surveys: "Surveys", problems: "Problems", most: int, done: "dict[Guest, Portion]") -> None:
    guests = [_as_object(guest, surveys.get(guest), most, done.get(guest)) for guest in {**surveys, **problems}]
    for each, guest in zip(guests, {**surveys, **problems}, strict=True):
        each["problem"] = problems.get(guest)
    print_json({"most_merged_pages": most, "guests": guests})


def _as_object(guest: "Guest", survey: "Survey | None", most: int, portion: "Portion | None") -> dict[str, Any]:
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

    found: dict[str, Any] = {"name": guest.name, "pid": guest.pid}
    if survey is not None:
        found |= {
            "range_bytes": survey.range_pages * OWN_PAGE_BYTES,
            "huge_ranges": survey.huge,
            "left_ranges": survey.left,
            "split_ranges_by_merged_pages": {merged: count for merged, count in enumerate(survey.split) if count},
            "planned_ranges": survey.ranges(most),
            "planned_bytes": survey.paid_pages(most) * OWN_PAGE_BYTES,
        }
    if portion is not None:
        found |= {
            "given_ranges": portion.given,
            "paid_bytes": portion.paid * OWN_PAGE_BYTES,
            "failed_ranges": portion.failed,
            "changed_ranges": portion.left,
            "cpu_seconds": portion.cpu_seconds,
        }
    return found


def _tell(sentence: str) -> None:
    err().print(sentence)
