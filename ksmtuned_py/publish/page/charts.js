// The charts of the last hour. Each has its figures as text, too: a canvas tells a screen reader nothing.

import { GIB, KIB, MIB, bytes, element, percent, rate, say } from "./words.js";

const HOUR_SECONDS = 3600;
const LEAST_SECONDS = 300;
const GAP_SECONDS = 180; // longer than any tick: the daemon was away, and no line is drawn
const HEIGHT = 144;
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const BINARY_STEPS = Array.from({ length: 40 }, (_, power) => KIB * 2 ** power);
const CHARTS = [
  { title: "Saved memory", unit: bytes, least: 16 * MIB, series: [["", "saved_bytes"]] },
  { title: "Debt against headroom", unit: bytes, least: GIB, series: [["Headroom", "headroom_bytes"], ["Debt", "debt_bytes"]] },
  { title: "Guests’ huge pages", unit: bytes, least: 16 * MIB, series: [["", "huge_bytes"]] },
  { title: "Copies of merged pages", unit: rate, least: 10, series: [["", "copies_per_second"]] },
  { title: "CPU of the scanner, of a core", unit: percent, least: 0.01, series: [["", "ksmd_cpu_share"]] },
  { title: "Pressure: some task waited", unit: percent, least: 0.01, series: [["for memory", "memory_pressure"], ["for a CPU", "cpu_pressure"]] },
];

// The last row of a history as an object; empty without rows.
export function lastRow({ columns, rows }) {
  return rows.length ? Object.fromEntries(columns.map((name, place) => [name, rows.at(-1)[place]])) : {};
}

export class Charts {
  constructor(parent) {
    this.charts = CHARTS.map((about) => new Chart(about));
    parent.replaceChildren(...this.charts.map((chart) => chart.figure));
    // Lines are drawn in the colours of the page, which change with the scheme.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.charts.forEach((chart) => chart.draw()));
  }

  show(history) {
    const columns = byColumn(history);
    for (const chart of this.charts) chart.show(columns);
  }
}

// The columns by their names. Where the daemon was away there is a row of nothing.
function byColumn({ columns, rows }) {
  const time = columns.indexOf("time_seconds");
  const whole = [];
  for (const row of rows) {
    const before = whole.at(-1);
    if (before && row[time] - before[time] > GAP_SECONDS) {
      whole.push(columns.map((_, place) => (place === time ? row[time] - 1 : null)));
    }
    whole.push(row);
  }
  return new Map(columns.map((name, place) => [name, whole.map((row) => row[place])]));
}

class Chart {
  constructor(about) {
    this.about = about;
    this.data = null;
    this.figure = element("figure", "", "card");
    this.legend = element("ul", "", "series");
    this.span = element("p", "", "note");
    this.plot = element("div", "", "plot");
    this.plot.setAttribute("aria-hidden", "true");
    this.values = about.series.map(([label], place) => this.entry(label, place));
    const caption = element("figcaption");
    caption.append(element("h3", about.title), this.legend, this.span);
    this.figure.append(caption, this.plot);
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  entry(label, place) {
    const item = element("li");
    const value = element("span");
    if (label) item.append(element("i", "", place ? "second" : ""), `${label} `);
    item.append(value);
    this.legend.append(item);
    return value;
  }

  show(columns) {
    const names = this.about.series.map(([, name]) => name);
    this.data = [columns.get("time_seconds"), ...names.map((name) => columns.get(name))];
    this.end = this.data[0].at(-1) ?? Date.now() / 1000;
    this.begin = Math.max(this.end - HOUR_SECONDS, Math.min(this.data[0][0] ?? this.end, this.end - LEAST_SECONDS));
    this.tell(null);
    if (this.chart) this.chart.setData(this.data);
    else this.draw();
  }

  // The figures at one place of the chart, and when that was; without a place, the last ones and their span.
  tell(place) {
    say(this.span, place === null ? this.sentence() : `at ${CLOCK.format(this.data[0][place] * 1000)}`);
    this.values.forEach((value, number) => {
      const found = this.data[number + 1][place ?? this.data[0].length - 1];
      say(value, this.about.unit(found));
    });
  }

  sentence() {
    const parts = this.about.series.map(([label], number) => {
      const found = this.data[number + 1].filter((value) => value !== null);
      if (!found.length) return "";
      const [low, high] = [Math.min(...found), Math.max(...found)].map(this.about.unit);
      return `${label ? `${label} ` : ""}${low === high ? `${low} all the time` : `${low} to ${high}`}`;
    });
    return parts.filter(Boolean).join(", ") || "nothing recorded yet";
  }

  draw() {
    if (!this.data) return;
    this.chart?.destroy();
    this.chart = new globalThis.uPlot(this.options(), this.data, this.plot);
  }

  resize() {
    const width = this.plot.clientWidth;
    if (this.chart && width && width !== this.chart.width) this.chart.setSize({ width, height: HEIGHT });
  }

  options() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: colour("quiet"), font: "12px system-ui, sans-serif", ticks: { show: false }, gap: 6 };
    const grid = { stroke: colour("line"), width: 1 };
    const { unit, least, series } = this.about;
    return {
      width: this.plot.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "hour" }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => [this.begin, this.end] },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(least, (high ?? 0) * 1.08)] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 70, size: 24, values: (_, times) => times.map((time) => CLOCK.format(time * 1000)) },
        {
          ...axis, grid, size: 64, space: 26,
          incrs: unit === bytes ? BINARY_STEPS : undefined,
          values: (_, values) => values.map(unit),
        },
      ],
      series: [
        {},
        ...series.map((_, place) => ({
          stroke: colour(place ? "second" : "first"),
          fill: place ? undefined : `${colour("first")}1f`,
          width: 1.75,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [(chart) => this.tell(chart.cursor.idx ?? null)] },
    };
  }
}
