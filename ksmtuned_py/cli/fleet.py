"""`ksmtuned-py fleet`: shows what Prometheus knows of many hosts, and which of them are odd."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from ksmtuned_py.cli.options import add_file, add_verb
from ksmtuned_py.cli.terminal import err, out, print_json
from ksmtuned_py.errors import FAILED, KsmtunedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.publish.fleet.ask import Prometheus
    from ksmtuned_py.publish.fleet.hosts import Figure, FleetHost
    from ksmtuned_py.publish.fleet.judge import Judged

HEADERS = ("HOST", "SAVED", "DEBT", "RISK", "SCANNER", "HUGE LOST", "VERSION", "CONFIG", "ODD")
LEFT = frozenset({"HOST", "VERSION", "CONFIG", "ODD"})


class EmptyFleet(KsmtunedError):
    """Prometheus knows no host with ksmtuned-py."""

    template = "Prometheus knows no host with ksmtuned-py"
    hint_template = "docs/monitoring.md tells how it scrapes them"


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "fleet",
        run,
        "what merging saves and costs on many hosts, and which of them are odd",
        "Asks a Prometheus that scrapes them, and no host itself. Exits with 0 when no host is odd, with 1 when one "
        "is, with 2 when Prometheus could not be asked, or knows no host. RISK is the debt as a share of what the host "
        "could find for it. SCANNER is the scanner's share of one core, and HUGE LOST the huge pages that merging has "
        "split, each in the last hour.",
    )
    parser.add_argument("--prometheus", metavar="URL", required=True, help="where it is: http://127.0.0.1:9090")
    add_file(parser, "--bearer-token-file", "the token that it wants, in a file")
    parser.add_argument("--json", action="store_true", help="an object with the hosts and the sums, for programs")


def run(args: Namespace) -> int:
    """Prints the hosts; raises NotAnswered, NoPrometheusUrl, Unreadable or EmptyFleet."""
    from ksmtuned_py.publish.fleet.ask import Prometheus, read_token
    from ksmtuned_py.publish.fleet.judge import judge

    token = read_token(args.bearer_token_file) if args.bearer_token_file else ""
    prometheus = Prometheus(args.prometheus, token)
    judged = judge(_hosts(prometheus))
    for warning in sorted(prometheus.warnings):
        err().print(f"Prometheus warns: {warning}", style="yellow")
    if not judged:
        raise EmptyFleet
    if args.json:
        _print_json(judged)
    else:
        _print_table([HEADERS, *map(_row, judged)])
        _print_odd(judged)
    return FAILED if any(each.oddities for each in judged) else 0


def _hosts(prometheus: "Prometheus") -> "tuple[FleetHost, ...]":
    from ksmtuned_py.publish.fleet.hosts import JOBS_QUERY, hosts_in, jobs_in, queries

    jobs = jobs_in(prometheus.query(JOBS_QUERY))
    return hosts_in(prometheus.answers(queries(jobs)))


def _row(judged: "Judged") -> tuple[str, ...]:
    from ksmtuned_py.units import human_percent

    host = judged.host
    share, lost = host.get("scanner_cpu_ratio"), host.get("huge_pages_lost")
    return (
        host.name,
        _bytes(host.get("saved_bytes")),
        _bytes(host.get("debt_bytes")),
        "?" if host.risk is None else human_percent(host.risk),
        "?" if share is None else human_percent(share),
        "?" if lost is None else f"{lost:.0f}",
        host.version or "?",
        host.config_hash or "?",
        ", ".join(oddity.code for oddity in judged.oddities),
    )


def _bytes(count: float | None) -> str:
    from ksmtuned_py.units import human_bytes

    return "?" if count is None else human_bytes(count)


def _print_table(rows: "Sequence[tuple[str, ...]]") -> None:
    from ksmtuned_py.cli.columns import aligned

    for row, line in zip(rows, aligned(rows, LEFT), strict=True):
        out().print(line, style="bold" if row is rows[0] else "yellow" if row[-1] else None)


def _print_odd(judged: "Sequence[Judged]") -> None:
    odd = [each for each in judged if each.oddities]
    saved, answering = _bytes(_sum(judged, "saved_bytes")), sum(each.host.answers for each in judged)
    out().print(
        f"\n{answering} of {len(judged)} hosts answer, and save {saved}; {len(odd) or 'none'} odd", style="bold"
    )
    for each in odd:
        out().print(f"  {each.host.name}: {'; '.join(oddity.sentence for oddity in each.oddities)}")


def _sum(judged: "Sequence[Judged]", figure: "Figure") -> float:
    return sum(each.host.get(figure) or 0.0 for each in judged)


def _print_json(judged: "Sequence[Judged]") -> None:
    sums: dict[str, Any] = {
        "hosts": len(judged),
        "answering": sum(each.host.answers for each in judged),
        "odd": sum(bool(each.oddities) for each in judged),
        "saved_bytes": round(_sum(judged, "saved_bytes")),
        "debt_bytes": round(_sum(judged, "debt_bytes")),
    }
    print_json({"sums": sums, "hosts": list(map(_as_object, judged))})


def _as_object(judged: "Judged") -> dict[str, Any]:
    from ksmtuned_py.publish.fleet.hosts import FIGURES

    host = judged.host
    return {
        "name": host.name,
        "answers": host.answers,
        "version": host.version,
        "config_hash": host.config_hash,
        "mode": host.mode,
        **{figure: _number(host.get(figure)) for figure in FIGURES},
        "risk": host.risk,
        "odd": [oddity._asdict() for oddity in judged.oddities],
    }


def _number(value: float | None) -> float | None:
    """A figure as JSON has it: whole bytes without a fraction."""
    return int(value) if value is not None and value.is_integer() else value
