// The figures above the fold, and what they mean in a sentence.

import { MIB, MODES, bytes, capital, count, element, moment, percent, rate, say, seconds } from "./words.js";

const RESERVE = 16 * MIB; // left to a guest below its limit, as the daemon has it
const NAMED = 3;

const at = (id) => document.getElementById(id);

export function showOverview(status, last) {
  const { snapshot, decision, totals } = status;
  const { memory } = snapshot;
  say(at("saved"), bytes(status.saved_bytes));
  say(at("saved-note"), `${bytes(status.profit_bytes)} net of the kernel’s records; the host has ${bytes(memory.total_bytes)}`);
  showDecision(decision, status.line.endsWith("only watching"));
  showFall(snapshot, status.saved_bytes, last.debt_room_bytes);
  showCapacity(totals.capacity);
  showLosses(snapshot, totals, last.copies_per_second);
  showScanner(status);
  showPressure(snapshot);
}

function showDecision(decision, watching) {
  say(at("mode"), `${capital(decision.mode)}:`);
  say(at("mode-means"), (MODES[decision.mode] ?? "") + (watching ? " Nothing is written: the daemon only watches." : ""));
  say(at("reason"), `${capital(decision.reason)}.`);
  list(at("rules"), decision.verdicts, (verdict) => {
    const item = element("li", "", verdict.rule === decision.rule ? "won" : "");
    item.append(element("span", verdict.rule.replaceAll("_", " ")), element("span", verdict.sentence));
    return item;
  });
  list(at("would-change"), decision.would_change, (sentence) => element("li", sentence));
}

// Whether the host could find the memory if guests wrote to all merged pages at once, and each guest below its limit.
export function fall(debt, headroom, room, short) {
  if (typeof room !== "number") return ["", "–"];
  if (debt > room) return ["bad", "Yes, if guests write to all merged pages"];
  if (short.length) return ["warn", `Not the host, but ${short.length === 1 ? "a guest" : `${short.length} guests`} could`];
  if (debt === 0) return ["well", "No: nothing is merged"];
  if (debt > headroom) return ["warn", "Not while there is swap"];
  return ["well", "No: headroom covers the debt"];
}

// The names of the guests whose limits would not let them take back all that they have merged.
export function shortOfRoom({ guests, page_bytes: page }) {
  const merged = ({ ksm }) => (ksm ? (ksm.merging_pages + Math.max(0, ksm.zero_pages)) * page : 0);
  const short = (guest) => typeof guest.room_bytes === "number" && merged(guest) && merged(guest) > guest.room_bytes - RESERVE;
  return guests.filter(short).map((guest) => guest.name);
}

function showFall(snapshot, debt, room) {
  const { memory } = snapshot;
  const short = shortOfRoom(snapshot);
  const headroom = memory.available_bytes + memory.arc_reclaimable_bytes;
  const [kind, sentence] = fall(debt, headroom, room, short);
  at("fall").className = `verdict ${kind}`;
  say(at("fall"), sentence);
  say(at("debt"), bytes(debt));
  say(at("headroom"), bytes(headroom));
  const whole = Math.max(debt, headroom, 1);
  at("debt-bar").style.width = `${100 * debt / whole}%`;
  at("headroom-bar").style.width = `${100 * headroom / whole}%`;
  const found = typeof room === "number" ? `${memory.swap_total_bytes ? "With free swap the" : "The"} host could find ${bytes(room)}.` : "";
  say(at("fall-note"), found + (short.length ? ` A limit leaves no room for what they have merged: ${some(short)}.` : ""));
}

const some = (names) => names.slice(0, NAMED).join(", ") + (names.length > NAMED ? ` and ${names.length - NAMED} more` : "");

// What was recorded says something about the next day only after a while.
function showCapacity(capacity) {
  say(at("chance"), capacity ? percent(capacity.chance_now) : "not known yet");
  say(at("fits"), capacity ? count(capacity.guests) : "not known yet");
}

function showLosses(snapshot, totals, copies) {
  const { split, collapsed } = totals.huge_cost;
  const huge = snapshot.guests.map((guest) => guest.huge_bytes).filter((size) => size !== null);
  say(at("huge"), huge.length || !snapshot.guests.length ? bytes(huge.reduce((sum, size) => sum + size, 0)) : "not known yet");
  say(at("split"), count(split));
  say(at("losses-note"), `The host has ${bytes(snapshot.memory.anon_huge_bytes)} in huge pages. ${count(collapsed)} were made again while it merged.`);
  say(at("copies"), snapshot.vmstat.cow_ksm === null ? "not told by this kernel" : rate(copies));
  say(at("cpu-wait"), snapshot.cpu_pressure ? tenSeconds(snapshot.cpu_pressure.some) : "not known");
}

function showScanner(status) {
  const { snapshot, totals, cpu_seconds_per_saved_gib: price } = status;
  const name = snapshot.backend === "kernel" ? "ksmd" : "scanner";
  for (const each of document.querySelectorAll(".scanner")) say(each, name === "ksmd" ? name : "The scanner");
  say(at("cpu"), percent(totals.scanner_share));
  say(at("cpu-note"), "of a core, in the last minute");
  say(at("price"), price === null || typeof price !== "number" ? "not known" : `${Number(price.toPrecision(3))} CPU-s`);
  say(at("passes"), count(snapshot.counters.full_scans));
}

function showPressure({ pressure, memory }) {
  say(at("pressure"), pressure ? tenSeconds(pressure.some) : "not known");
  say(at("pressure-full"), pressure ? tenSeconds(pressure.full) : "not known");
  say(at("swap"), memory.swap_total_bytes ? `${bytes(memory.swap_free_bytes)} of ${bytes(memory.swap_total_bytes)}` : "no swap");
}

const tenSeconds = (stall) => percent(stall.avg10_percent / 100);

// What an admin should know of, in the order of its weight.
export function attention(status) {
  const { snapshot, totals } = status;
  const said = [];
  for (const each of snapshot.foreign) {
    const who = snapshot.suspects.length ? `Seen running: ${snapshot.suspects.join(", ")}` : "";
    said.push([`Somebody else changed ${each.knob} from our ${each.ours} to ${each.seen}.`, who]);
  }
  for (const { write, status: how, detail } of status.outcome.results) {
    if (how === "refused" || how === "lost") said.push([`Writing ${write.knob} = ${write.new} was ${how}.`, detail]);
  }
  if (snapshot.pause) {
    said.push([`Merging is paused until ${moment(snapshot.pause.until_unix_seconds)}.`, snapshot.pause.reason]);
  }
  if (snapshot.giving_back) said.push(["All merged memory is being given back to the guests.", ""]);
  for (const sentence of snapshot.problems) said.push([`${capital(sentence)}.`, ""]);
  for (const [where, times] of Object.entries(totals.errors)) {
    if (where !== "sensor") said.push([`${capital(where)} failed ${count(times)} times since the daemon began.`, `The last error: ${totals.last_error}`]);
  }
  return said;
}

export function showAttention(status) {
  const said = attention(status);
  at("attention").hidden = said.length === 0;
  list(at("attention-list"), said, ([sentence, more]) => {
    const item = element("li", sentence);
    if (more) item.append(element("small", more));
    return item;
  });
}

export function showDecisions(decisions) {
  const now = new Date();
  list(at("decisions"), decisions, (each) => {
    const item = element("li");
    const time = element("time", moment(each.unix_seconds, now));
    time.dateTime = new Date(each.unix_seconds * 1000).toISOString();
    item.append(time, element("strong", capital(each.mode)), element("span", each.reason));
    return item;
  });
}

export function showAge(age) {
  say(at("age"), `As of ${seconds(age)} ago`);
}

const shown = new WeakMap();

// Makes a list anew when what it shows has changed, so that nobody's selection is lost to the next answer.
function list(parent, entries, make) {
  const text = JSON.stringify(entries);
  if (shown.get(parent) === text) return;
  shown.set(parent, text);
  parent.replaceChildren(...entries.map(make));
}
