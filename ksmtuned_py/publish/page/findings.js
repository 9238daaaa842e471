// What the doctor found last. It looks now and then, in a program of its own, and the page never waits for it.

import { element, moment, say } from "./words.js";

const NAMED = 3;

// Whose finding it is, as "host", "web", or "16 guests (web-1, web-2, web-3 and 13 more)".
export function subject(names) {
  if (names.length < 2) return names[0] ?? "host";
  const more = names.length > NAMED ? ` and ${names.length - NAMED} more` : "";
  return `${names.length} guests (${names.slice(0, NAMED).join(", ")}${more})`;
}

export class Findings {
  constructor(list, age) {
    this.list = list;
    this.age = age;
    this.looking = false;
    this.shown = "";
  }

  show({ looked_unix_seconds: looked, looking, problem, findings }) {
    this.looking = looking;
    say(this.age, [when(looked, looking, findings), problem].filter(Boolean).join("; "));
    const text = JSON.stringify(findings);
    if (text === this.shown) return;
    this.shown = text;
    this.list.replaceChildren(...findings.map(item));
    this.list.hidden = !findings.length;
  }
}

function when(looked, looking, findings) {
  if (looked === null) return looking ? "looking for the first time" : "not looked yet";
  const what = findings.length ? "findings" : "nothing found that keeps memory from merging,";
  return `${what} of ${moment(looked)}${looking ? ", looking again" : ""}`;
}

function item({ severity, sentence, evidence, mend, guests }) {
  const made = element("li", "", severity);
  const head = element("p");
  head.append(element("strong", severity === "finding" ? "Finding" : "Note"), ` ${subject(guests)}: ${sentence}`);
  made.append(head, element("small", `Seen: ${evidence}`), element("small", `What helps: ${mend}`));
  return made;
}
