// The table of guests. Its rows stay and only change, so that 500 of them cost little at each answer.

import { announce, bytes, element, say } from "./words.js";

const size = (value) => (value === null ? "–" : bytes(value));
const RECORD_BYTES = 64; // what the kernel keeps for each page that it tracks
const COLUMNS = [
  { name: "Guest", key: (guest) => guest.name, show: String, kind: "" },
  { name: "PID", key: (guest) => guest.pid, show: String, kind: "number wide pid" },
  { name: "Memory", key: (guest) => guest.rss_bytes, show: size, kind: "number wide" },
  { name: "Huge pages", key: (guest) => guest.huge_bytes, show: size, kind: "number wide" },
  { name: "Merged", key: (guest, page) => guest.ksm && guest.ksm.merging_pages * page, show: size, kind: "number" },
  { name: "Zero pages", key: (guest, page) => guest.ksm && guest.ksm.zero_pages * page, show: size, kind: "number wide" },
  { name: "Records", key: (guest) => guest.ksm && guest.ksm.rmap_items * RECORD_BYTES, show: size, kind: "number wide" },
  { name: "Profit", key: (guest) => guest.ksm && guest.ksm.profit_bytes, show: size, kind: "number" },
  { name: "Group", key: (guest) => guest.group, show: String, kind: "wide group" },
  { name: "Merging", key: merging, show: String, kind: "" },
];

// Whether a guest's memory may merge, and why not.
export function merging(guest) {
  if (guest.switched_off) return `switched off: ${guest.merge_reason}`;
  if (guest.obstacles.length) return guest.obstacles.join(", ");
  if (guest.merge === false && guest.ksm?.mergeable !== false) return `not switched off yet: ${guest.merge_reason}`;
  if (guest.refused) return guest.refused;
  return { true: "yes", false: "no" }[guest.ksm?.mergeable] ?? "not known";
}

const ORDER = new Intl.Collator(undefined, { numeric: true });

// What is not known comes last, whichever way the others go.
export function compare(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "string" ? ORDER.compare(a, b) : a - b;
  return down ? -order : order;
}

export class Guests {
  constructor(table, filter, counter) {
    this.table = table;
    this.body = table.tBodies[0];
    this.filter = filter;
    this.counter = counter;
    this.rows = new Map();
    this.column = COLUMNS.findIndex((column) => column.name === "Profit");
    this.down = true;
    this.heads = COLUMNS.map((column, place) => this.head(column, place));
    table.tHead.rows[0].replaceChildren(...this.heads);
    this.mark();
    filter.addEventListener("input", () => {
      this.sift();
      announce(`${counter.textContent} guests`);
    });
  }

  head(column, place) {
    const head = element("th", "", column.kind);
    head.scope = "col";
    const button = element("button", column.name);
    button.type = "button";
    button.addEventListener("click", () => this.sort(place));
    head.append(button);
    return head;
  }

  // The same column again turns the order around. Sizes begin with the largest, words with the first.
  sort(place) {
    this.down = place === this.column ? !this.down : COLUMNS[place].show === size;
    this.column = place;
    this.mark();
    this.arrange();
  }

  mark() {
    this.heads.forEach((head, place) => {
      if (place === this.column) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  show({ guests, page_bytes: page }) {
    const gone = new Set(this.rows.keys());
    for (const guest of guests) {
      const key = `${guest.pid}:${guest.start_ticks}`;
      gone.delete(key);
      if (!this.rows.has(key)) this.rows.set(key, new GuestRow());
      this.rows.get(key).show(guest, page);
    }
    for (const key of gone) {
      this.rows.get(key).line.remove();
      this.rows.delete(key);
    }
    this.table.classList.toggle("ungrouped", guests.every((guest) => !guest.group));
    this.sift();
    this.arrange();
  }

  // Hides the rows without the words of the filter.
  sift() {
    const words = this.filter.value.toLowerCase().split(/\s+/);
    let fitting = 0;
    for (const row of this.rows.values()) {
      const fits = words.every((word) => row.text.includes(word));
      if (row.line.hidden === fits) row.line.hidden = !fits;
      fitting += fits;
    }
    const all = this.rows.size;
    say(this.counter, this.filter.value ? `${fitting} of ${all}` : String(all));
  }

  arrange() {
    const sorted = [...this.rows.values()].sort(
      (a, b) => compare(a.keys[this.column], b.keys[this.column], this.down) || ORDER.compare(a.keys[0], b.keys[0]),
    );
    this.place(sorted.map((row) => row.line));
  }

  // Moves only the lines that are out of place. As a rule that is none, or one that went up or down.
  place(lines) {
    let there = this.body.firstChild;
    for (const line of lines) {
      if (there && there !== line && there.nextSibling === line) {
        there.remove(); // it went down, and comes again below
        there = line;
      }
      if (there === line) there = line.nextSibling;
      else this.body.insertBefore(line, there);
    }
  }
}

class GuestRow {
  constructor() {
    this.line = element("tr");
    this.cells = COLUMNS.map((column, place) => element(place ? "td" : "th", "", column.kind));
    this.cells[0].scope = "row";
    this.line.append(...this.cells);
  }

  show(guest, page) {
    this.keys = COLUMNS.map((column) => column.key(guest, page));
    this.text = [guest.name, ...guest.aliases, guest.uuid, guest.pid, guest.group, guest.tag, guest.namespace, this.keys.at(-1)]
      .join(" ").toLowerCase();
    this.cells.forEach((cell, place) => {
      const text = COLUMNS[place].show(this.keys[place]);
      if (cell.textContent === text) return;
      cell.textContent = text;
      if (!COLUMNS[place].kind.includes("number")) cell.title = text;
    });
  }
}
