// Asks the daemon again and again, and shows what it says. Nothing here can change anything on the host.

import { Charts, lastRow } from "./charts.js";
import { Findings } from "./findings.js";
import { Guests } from "./guests.js";
import { showAge, showAttention, showDecisions, showOverview } from "./overview.js";
import { announce, bytes, capital, moment, say, seconds } from "./words.js";

const SCHEMA = 1;
const SOON_MS = 3000;
const HIDDEN_MS = 30000;
const PATIENCE_MS = 10000;
const HISTORY_MS = 12000;
const FINDINGS_MS = 60000;
const HISTORY = "api/v1/history?seconds=3600&points=360";

const at = (id) => document.getElementById(id);
const charts = new Charts(at("charts"));
const findings = new Findings(at("doctor"), at("doctor-age"));
const guests = new Guests(at("guests").querySelector("table"), at("filter"), at("count"));

let tag = "";
let status = null;
let last = {};
let historyAt = -Infinity;
let findingsAt = -Infinity;
let clockAheadMs = 0; // the host's clock against this one's
let answeredAt = null;
let timer = 0;
let asking = false;

// What is wrong, as a sentence for the user.
class Trouble extends Error {}

// An answer with its document; without one when it is what we have already.
async function ask(address, headers = {}) {
  let answer;
  let content = null;
  try {
    answer = await fetch(address, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.status !== 304) content = await answer.json();
  } catch {
    if (!answer || answer.ok) throw new Trouble(silence());
  }
  if (!answer.ok && answer.status !== 304) {
    throw new Trouble(`The daemon answers with an error, ${answer.status}: ${content?.error ?? answer.statusText}.`);
  }
  return { answer, content };
}

async function askStatus() {
  const { answer, content: found } = await ask("api/v1/status", tag ? { "If-None-Match": tag } : {});
  const date = Date.parse(answer.headers.get("Date"));
  if (date) clockAheadMs = date - Date.now();
  if (!found) return;
  if (found.schema !== SCHEMA) throw new Trouble("The daemon is of another version than this page. Reload the page.");
  tag = answer.headers.get("ETag") ?? "";
  announceMode(status?.decision.mode, found.decision.mode);
  status = found;
}

async function askHistory() {
  if (performance.now() - historyAt < HISTORY_MS) return;
  const { content: history } = await ask(HISTORY);
  historyAt = performance.now();
  last = lastRow(history);
  charts.show(history);
}

// The doctor looks only because somebody asks, so a page that nobody sees does not.
async function askFindings() {
  const pause = findings.looking ? SOON_MS : FINDINGS_MS;
  if (document.hidden || performance.now() - findingsAt < pause) return;
  findingsAt = performance.now();
  findings.show((await ask("api/v1/doctor")).content);
}

function show() {
  showOverview(status, last);
  showAttention(status);
  showDecisions(status.decisions);
  guests.show(status.snapshot);
  say(at("version"), `ksmtuned-py ${status.version}`);
  document.title = `${bytes(status.saved_bytes)} saved, ${status.decision.mode} – ksmtuned-py`;
}

async function round() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    const before = tag;
    await askStatus();
    await askHistory();
    answeredAt = Date.now();
    if (tag !== before || !tag) show();
    await askFindings();
    tell(lateness());
  } catch (problem) {
    tag = ""; // whoever answers next may be another daemon
    historyAt = findingsAt = -Infinity;
    tell(problem instanceof Trouble ? problem.message : "This page has failed. Reload it.");
    if (!(problem instanceof Trouble)) console.error(problem);
  }
  asking = false;
  timer = setTimeout(round, document.hidden ? HIDDEN_MS : SOON_MS);
}

function silence() {
  const since = answeredAt ? ` since ${moment(answeredAt / 1000)}` : "";
  return `The daemon does not answer${since}. What you see is old. This page goes on asking, and goes on by itself.`;
}

// A daemon whose web server answers, but whose ticks do not come.
function lateness() {
  const late = age() - status.decision.next_tick_seconds;
  return late > Math.max(10, status.decision.next_tick_seconds) ? `The daemon’s tick is ${seconds(late)} late.` : "";
}

const age = () => (Date.now() + clockAheadMs) / 1000 - status.written_unix_seconds;

function tell(trouble) {
  const news = trouble.replace(/\d.*/, ""); // not each second of being late is news
  const before = (at("trouble").textContent ?? "").replace(/\d.*/, "");
  at("trouble").hidden = !trouble;
  say(at("trouble"), trouble);
  document.querySelector("main").classList.toggle("stale", Boolean(trouble));
  if (news !== before) announce(trouble || "The daemon answers again.");
}

function announceMode(before, now) {
  if (before && before !== now) announce(`${capital(now)} mode now.`);
}

say(at("host"), location.host);
setInterval(() => status && showAge(age()), 1000);
document.addEventListener("visibilitychange", () => document.hidden || round());
round();
