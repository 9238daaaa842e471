"""`ksmtuned-py simulate`: runs policies side by side on a model of ksmd."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_file, add_verb, load_config
from ksmtuned_py.cli.policies import CHOICES, with_policy
from ksmtuned_py.cli.terminal import err, out, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.config import Config
    from ksmtuned_py.simulate.figures import Figures
    from ksmtuned_py.simulate.run import SimulatedRun
    from ksmtuned_py.simulate.scenario import Scenario

BARS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60
PIPE_WIDTH, HUGE_PIPE_WIDTH = 150, 190
"""The width of the output where there is no terminal; guests with huge pages have columns of their own."""


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "simulate",
        run,
        "run policies on a model of ksmd, on a host of any size",
        "Prints what each policy saves, when, and at what CPU. SCENARIO is a TOML file or the name of a shipped one; "
        "docs/simulation.md tells what is in it, and how far the model is from the real ksmd.",
    )
    parser.add_argument("scenario", metavar="SCENARIO", nargs="?", help="a file or a name; without: the names")
    parser.add_argument(
        "--policy",
        action="append",
        choices=CHOICES,
        metavar="NAME",
        help=f"one of {', '.join(CHOICES)}; may be repeated (default: the configured one and ksmtuned)",
    )
    add_config(parser)
    add_file(parser, "--plot", "draw saved memory and CPU over time; its name ends in .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: Namespace) -> int:
    """Simulates each policy in a process of its own; raises NoScenario, BadScenario, NoPlot, ConfigErrors."""
    from ksmtuned_py.simulate.figures import figures
    from ksmtuned_py.simulate.scenario import load, shipped_names

    if args.scenario is None:
        print("\n".join(f"{name:<12} {load(name).title}" for name in shipped_names()))
        return 0
    scenario = load(args.scenario)
    configured = load_config(args).config
    names = args.policy or list(dict.fromkeys((configured.policy.name, "ksmtuned")))
    runs = _simulate(scenario, {name: with_policy(configured, name) for name in names})
    rows = [figures(scenario, each) for each in runs]
    if args.plot:
        from ksmtuned_py.simulate.plot import draw

        draw(scenario, runs, args.plot)
    if args.json:
        _print_json(scenario, rows)
    else:
        _print(scenario, runs, rows)
    return 0


def _simulate(scenario: "Scenario", configs: "dict[str, Config]") -> "list[SimulatedRun]":
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from ksmtuned_py.simulate.run import simulate

    # Forked before there is any thread, because spawning would leave a helper process behind until we exit.
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        started = {name: pool.submit(simulate, scenario, config, name) for name, config in configs.items()}
        done = []
        with err().status("simulating") as status:
            for number, (name, future) in enumerate(started.items()):
                status.update(f"simulating {name} ({number} of {len(started)} done)")
                done.append(future.result())
    return done


def _print_json(scenario: "Scenario", rows: "list[Figures]") -> None:
    print_json({"scenario": scenario, "figures": rows})


def _print(scenario: "Scenario", runs: "list[SimulatedRun]", rows: "list[Figures]") -> None:
    from ksmtuned_py.door.text import printable
    from ksmtuned_py.units import human_seconds

    out().print(printable(scenario.title), style="bold")
    if not out().is_terminal:
        out().width = PIPE_WIDTH if all(row.speed is None for row in rows) else HUGE_PIPE_WIDTH
    out().print(_table(rows))
    out().print(f"\nsaved, of what can be, over {human_seconds(scenario.seconds)}:")
    width = max(len(each.policy) for each in runs)
    for each in runs:
        out().print(f"{each.policy:>{width}} {_curve(each, scenario.seconds)}")


def _table(rows: "list[Figures]") -> "Table":
    from rich.table import Table

    from ksmtuned_py.units import human_bytes, human_percent, human_seconds

    def seconds(value: float | None) -> str:
        return "-" if value is None else human_seconds(value)

    table = Table(box=None, pad_edge=False)
    heads = ("to 50 %", "90 %", "95 %", "saved area", "saved at end", "ksmd CPU", "steady")
    huge = ("least available", "huge at end", "speed") if any(row.speed is not None for row in rows) else ()
    for head in ("policy", *heads, "longest pass", "in boost", "own CPU", *huge):
        table.add_column(head, justify="left" if head == "policy" else "right", no_wrap=True)
    for row in rows:
        reached = {each.share: each.seconds for each in row.reached}
        table.add_row(
            row.policy,
            *(seconds(reached.get(mark)) for mark in (0.5, 0.9, 0.95)),
            human_percent(row.saved_area),
            human_bytes(row.saved_bytes),
            human_seconds(row.cpu_seconds),
            human_percent(row.steady_cpu),
            seconds(row.longest_pass_seconds),
            seconds(row.longest_boost_pass_seconds),
            human_percent(row.deciding_cpu),
            *(_guests(row) if huge else ()),
        )
    return table


def _guests(row: "Figures") -> tuple[str, str, str]:
    """What it was like for guests with huge pages."""
    from ksmtuned_py.units import human_bytes, human_percent

    share = "-" if row.huge_share is None else human_percent(row.huge_share)
    return human_bytes(row.least_available_bytes), share, "-" if row.speed is None else f"{row.speed:.3f}"


def _curve(each: "SimulatedRun", seconds: float) -> str:
    """The saved share over time as a row of blocks. Each is the last sample of its part of the time."""
    shares = [0.0] * CURVE_WIDTH
    for sample in each.samples:
        place = min(int(sample.seconds / seconds * CURVE_WIDTH), CURVE_WIDTH - 1)
        best = sample.achievable_bytes
        shares[place:] = [min(sample.saved_bytes / best, 1.0) if best else 0.0] * (CURVE_WIDTH - place)
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares)
