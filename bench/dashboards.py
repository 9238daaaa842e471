"""Draws a dashboard: what each of its panels asks is asked of a Prometheus, and the answers become one picture.

    python -m bench.dashboards fleet --prometheus http://127.0.0.1:9090 fleet.png
    python -m bench.dashboards host host.png        # of a daemon on a model, with a Prometheus of its own

It is no screenshot of Grafana, which the picture's heading says.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib

matplotlib.use("agg")  # no display wanted

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ksmtuned_py.units import human_bytes, human_percent, human_seconds
from tests.support.daemon import Daemon, Sections, free_port
from tests.support.prometheus import Prometheus

DASHBOARDS = Path(__file__).parent.parent / "packaging/grafana"
COLUMNS, UNIT_INCHES = 24, 0.62
"""Grafana's grid, and how large a field of it is drawn."""
POINTS = 200
COLOURS = ("#1f78c1", "#56a64b", "#e02f44", "#b877d9", "#ff9830", "#8ab8ff", "#37872d", "#8f3bb8")
STEP_COLOURS = {"green": "#37872d", "yellow": "#d9a400", "red": "#c4162a", "blue": "#1f60c4"}
LEGEND_LENGTH = 24
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Line:
    """One series of an answer."""

    name: str
    seconds: list[float]
    values: list[float]


@dataclass(frozen=True)
class Source:
    """A Prometheus, the chosen host, and the time that is drawn."""

    url: str
    host: str
    seconds: float

    def lines(self, target: dict[str, Any]) -> Iterator[Line]:
        """Yields the series that a panel's question is answered with."""
        step = max(1.0, self.seconds / POINTS)
        expression = target["expr"].replace("$instance", self.host)
        expression = expression.replace("$__rate_interval", f"{max(10, round(4 * step))}s")
        now = time.time()
        parameters = {"query": expression, "start": now - self.seconds, "end": now, "step": step}
        with urlopen(f"{self.url}/api/v1/query_range?{urlencode(parameters)}", timeout=60) as answer:
            result = json.load(answer)["data"]["result"]
        for series in result:
            points = [(at - now, float(value)) for at, value in series["values"]]
            name = _named(target["legendFormat"], series["metric"])
            yield Line(name, [at for at, _ in points], [value for _, value in points])


def _named(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend[:LEGEND_LENGTH]


def draw(name: str, source: Source, file: Path | BinaryIO) -> None:
    """Draws a dashboard into a file."""
    content = json.loads((DASHBOARDS / f"{name}.json").read_text())
    panels = content["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = pyplot.figure(figsize=(COLUMNS * UNIT_INCHES, (rows + 1) * UNIT_INCHES), dpi=80, facecolor="#f4f5f5")
    figure.text(
        0.5, 1 - 0.4 / (rows + 1), f"{content['title']} {source.host} (rendered, not Grafana)", ha="center", size=12
    )
    for panel in panels:
        place = panel["gridPos"]
        left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"] + 1) / (rows + 1)
        width, height = place["w"] / COLUMNS, place["h"] / (rows + 1)
        if panel["type"] == "row":
            figure.text(left + 0.005, bottom + 0.3 * height, panel["title"], weight="bold", size=10)
            continue
        margins = (0.2, 0.4) if panel["type"] == "stat" else (0.22, 0.3)
        indent = 0.3 if panel["type"] == "bargauge" else margins[0] * 0.6
        box = (left + indent * width, bottom + 0.15 * height, (0.95 - indent) * width, (0.95 - margins[1]) * height)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], size=9, loc="left")
        lines = [line for target in panel["targets"] for line in source.lines(target)]
        (KINDS[panel["type"]] if lines else _nothing)(axes, panel, lines)
    figure.savefig(file, format="png")
    pyplot.close(figure)


def _nothing(axes: Axes, *_: object) -> None:
    axes.axis("off")
    axes.text(0.5, 0.4, "no data", ha="center", va="center", size=12, color="grey")


def _stat(axes: Axes, panel: dict[str, Any], lines: Sequence[Line]) -> None:
    axes.axis("off")
    if panel["options"]["textMode"] == "name":
        now = [line for line in lines if line.seconds[-1] > -POINTS]
        newest = max(now or lines, key=lambda line: line.seconds[-1])
        text, colour = newest.name, "#1f60c4"
    else:
        text, colour = _worded(lines[0].values[-1], panel), _colour(lines[0].values[-1], panel)
    axes.text(0.5, 0.4, text, ha="center", va="center", size=18 if len(text) < 11 else 12, color=colour, weight="bold")


def _bars(axes: Axes, panel: dict[str, Any], lines: Sequence[Line]) -> None:
    ordered = sorted((line for line in lines if line.seconds[-1] > -POINTS), key=lambda line: line.values[-1])[-15:]
    values = [line.values[-1] for line in ordered]
    axes.barh([line.name for line in ordered], values, color=[_colour(value, panel) for value in values])
    for at, value in enumerate(values):
        axes.text(max(value, 0), at, f" {_worded(value, panel)}", va="center", size=6)
    axes.set_xlim(min([0.0, *values]), max([1e-9, *values]) * 1.25)
    axes.xaxis.set_visible(False)
    axes.tick_params(labelsize=6)


def _curves(axes: Axes, panel: dict[str, Any], lines: Sequence[Line]) -> None:
    stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    if stacked and lines:
        shortest = min(len(line.values) for line in lines)
        heights = [line.values[-shortest:] for line in lines]
        axes.stackplot(lines[0].seconds[-shortest:], heights, labels=[line.name for line in lines], colors=COLOURS)
    else:
        for line, colour in zip(lines, COLOURS * (1 + len(lines) // len(COLOURS)), strict=False):
            values = [value if isfinite(value) else float("nan") for value in line.values]
            axes.plot(line.seconds, values, label=line.name, color=colour, linewidth=1.2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(high * 1.05, 1e-9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _worded(value, panel)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"-{human_seconds(-value)}" if value else "now"))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=6, loc="best", framealpha=0.6)


def _states(axes: Axes, _: dict[str, Any], lines: Sequence[Line]) -> None:
    for at, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        step = line.seconds[1] - line.seconds[0] if len(line.seconds) > 1 else 1.0
        spans = [(seconds, step) for seconds, value in zip(line.seconds, line.values, strict=True) if value]
        axes.broken_barh(spans, (at - 0.4, 0.8), color=colour)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(-0.6, max(1, len(lines)) - 0.4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"-{human_seconds(-value)}" if value else "now"))
    axes.tick_params(labelsize=6)


KINDS = {"stat": _stat, "bargauge": _bars, "timeseries": _curves, "state-timeline": _states}


def _worded(value: float, panel: dict[str, Any]) -> str:
    if not isfinite(value):
        return "∞"
    match panel["fieldConfig"]["defaults"]["unit"]:
        case "bytes":
            return human_bytes(value)
        case "percentunit":
            return human_percent(value)
        case "s":
            return human_seconds(value) if value else "0 s"
        case _:
            return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _colour(value: float, panel: dict[str, Any]) -> str:
    """Returns the colour of the highest threshold that a value has reached."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return STEP_COLOURS[reached[-1]]


@contextmanager
def model(seconds: float) -> Iterator[Source]:
    """Yields a Prometheus that has scraped a daemon on a model for so long."""
    address = f"127.0.0.1:{free_port()}"
    sections: Sections = {"metrics": {"address": address}, "daemon": {"idle_tick_seconds": 2}}
    with (
        tempfile.TemporaryDirectory() as scratch,
        scraping(address, MODEL) as prometheus,
        Daemon(Path(scratch), sections, "--backend", "model"),
    ):
        time.sleep(seconds)
        yield Source(prometheus.url, MODEL, seconds)


@contextmanager
def scraping(address: str, host: str) -> Iterator[Prometheus]:
    """Yields a Prometheus that scrapes a daemon, which may begin later."""
    times = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    relabel = [{"target_label": "instance", "replacement": host}]
    job = {"job_name": "ksmtuned-py", "static_configs": [{"targets": [address]}], "relabel_configs": relabel}
    config = {"global": times, "scrape_configs": [job]}
    with tempfile.TemporaryDirectory() as scratch, Prometheus(Path(scratch), config) as prometheus:
        prometheus.wait_ready()
        yield prometheus


def main() -> None:
    """Draws one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("host", "fleet"))
    parser.add_argument("--prometheus", help="where it is (default: one of our own, for a daemon on a model)")
    parser.add_argument("--host", default="", help="the label instance of the host")
    parser.add_argument("--seconds", type=float, default=300.0, help="how far back")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    if args.prometheus:
        draw(args.name, Source(args.prometheus, args.host, args.seconds), args.picture)
        return
    with model(args.seconds) as source:
        draw(args.name, source, args.picture)


if __name__ == "__main__":
    main()
