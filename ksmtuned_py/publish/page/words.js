// Numbers and words as people read them. The steps and roundings are those of ksmtuned_py/units.py.

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
const STEPS = [["TiB", 1024 * GIB], ["GiB", GIB], ["MiB", MIB], ["KiB", KIB]];
const UNKNOWN = "not known";

const short = (value) => Math.abs(value) < 100 ? String(Math.round(value * 10) / 10) : value.toFixed(0);
const known = (value) => typeof value === "number" && Number.isFinite(value);

export function bytes(count) {
  if (!known(count)) return UNKNOWN;
  for (const [name, size] of STEPS) {
    if (Math.abs(count) >= size) return `${short(count / size)} ${name}`;
  }
  return `${Math.round(count)} B`;
}

export function percent(share) {
  if (!known(share)) return UNKNOWN;
  const value = share * 100;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  return `${value === 0 ? "0" : String(Number(value.toPrecision(Math.abs(value) < 1 ? 2 : 3)))} %`;
}

export function count(value) {
  return known(value) ? Math.round(value).toLocaleString("en") : UNKNOWN;
}

export function rate(perSecond) {
  if (!known(perSecond)) return UNKNOWN;
  return `${perSecond < 10 ? String(Math.round(perSecond * 10) / 10) : count(perSecond)} /s`;
}

export function seconds(value) {
  if (!known(value)) return UNKNOWN;
  if (value < 60) return `${Math.max(0, Math.round(value))} s`;
  if (value < 3600) return `${Math.round(value / 60)} min`;
  if (value < 86400) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} days`;
}

// What each mode is, from docs/glossary.md.
export const MODES = {
  off: "ksmd does not scan; what is merged stays merged.",
  boost: "scanning at a high share of a core, because there is news.",
  cruise: "scanning at a small share of a core, because passes still pay.",
  rest: "scanning less and less often, because passes no longer pay.",
  pinned: "the knobs are what the configuration says.",
  held: "somebody else writes the knobs, and the daemon writes none.",
};

export const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

const sameDay = (a, b) => a.toDateString() === b.toDateString();
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

// A time of today as 19:05:12; one of another day with its date.
export function moment(unixSeconds, now = new Date()) {
  const then = new Date(unixSeconds * 1000);
  return sameDay(then, now) ? CLOCK.format(then) : `${DAY.format(then)}, ${CLOCK.format(then)}`;
}

// Text goes into the page here and nowhere else, and never as HTML: guests name themselves.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// For a screen reader, and only what its user waits for or has to know.
export function announce(sentence) {
  say(document.getElementById("announcement"), sentence);
}

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}
