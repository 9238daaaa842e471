"""`python -m bench.sweep SCENARIO KEY VALUE...`: what a default is worth: one key, some values, on the model of ksmd.

KEY is a dotted key of the configuration, as in `adaptive.balanced.price_cpu_seconds_per_gib.calm`.
"""

import argparse
import tomllib
from concurrent.futures import ProcessPoolExecutor

from ksmtuned_py.config import Config
from ksmtuned_py.simulate.figures import MARKS, Figures, figures
from ksmtuned_py.simulate.run import simulate
from ksmtuned_py.simulate.scenario import Scenario, load
from ksmtuned_py.units import human_bytes, human_percent, human_seconds


def config_with(key: str, value: str) -> Config:
    """Returns the defaults but for this key; raises pydantic's ValidationError."""
    changed = Config().model_dump(mode="json")
    *sections, name = key.split(".")
    section = changed
    for each in sections:
        section = section[each]
    section[name] = tomllib.loads(f"value = {value}")["value"]
    return Config.model_validate(changed)


def row(scenario: Scenario, key: str, value: str) -> Figures:
    """Returns one value's figures."""
    return figures(scenario, simulate(scenario, config_with(key, value), value))


def main() -> None:
    """A Markdown table, a line for each value."""
    parser = argparse.ArgumentParser("python -m bench.sweep", description=main.__doc__)
    parser.add_argument("scenario", metavar="SCENARIO", help="a file or the name of a shipped one")
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("values", metavar="VALUE", nargs="+", help="as TOML has them")
    args = parser.parse_args()
    scenario = load(args.scenario)
    print(
        f"| {args.key} | to 50 % | 90 % | 95 % | area | saved at end | ksmd CPU | last quarter | longest boosted pass |"
    )
    print("|---:" * 9 + "|")
    with ProcessPoolExecutor() as pool:
        for found in pool.map(row, *zip(*((scenario, args.key, value) for value in args.values), strict=True)):
            print(f"| {' | '.join(_cells(found))} |", flush=True)


def _cells(found: Figures) -> list[str]:
    reached = {each.share: human_seconds(each.seconds) for each in found.reached}
    boost = found.longest_boost_pass_seconds
    return [
        found.policy,
        *(reached.get(mark, "never") for mark in MARKS),
        human_percent(found.saved_area),
        human_bytes(found.saved_bytes),
        human_seconds(found.cpu_seconds),
        human_percent(found.steady_cpu),
        "-" if boost is None else human_seconds(boost),
    ]


if __name__ == "__main__":
    main()
