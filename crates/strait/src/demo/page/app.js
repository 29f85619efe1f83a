// The page: takes what the worker measured, and shows it.

import { watchFlight } from "/flight.js";
import { Series, duration, place, quantile } from "/series.js";
import { Picture } from "/strait.js";

const KINDS = ["http", "socket", "events", "grpc"];
const NAMES = { http: "HTTP request", socket: "WebSocket echo", events: "Event, late by", grpc: "gRPC call" };
const SERIES = { http: "round trip, ms", socket: "round trip, ms", events: "late by, ms", grpc: "Echo round trip, ms" };
const WORDS = {
  http: ["answered", "mixed up", "lost"],
  socket: ["in order", "out of order", "lost"],
  events: ["in order", "out of order", "cut"],
  grpc: ["in order", "out of order", "cut"],
};
// Enough for a p99 to mean something, few enough to follow what happens now.
const KEPT = 600;
const FRAME = 33;

const $ = (selector, within = document) => within.querySelector(selector);
const picture = new Picture($("#picture"));
const cards = Object.fromEntries(KINDS.map((kind) => {
  const card = $(`.card[data-kind=${kind}]`);
  return [kind, {
    now: $("[data-now]", card),
    quantiles: $("[data-quantiles]", card),
    count: $("[data-count]", card),
    series: new Series($("canvas", card), kind, SERIES[kind]),
  }];
}));
const kept = Object.fromEntries(KINDS.map((kind) => [kind, { quiet: [], busy: [] }]));
const began = Date.now();
let style, busy = [], source = null, heard = 0;

// ---- Colours come from the style sheet, light or dark.
function readStyle() {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  style = {
    font: getComputedStyle(document.body).fontFamily,
    sea1: colour("--sea-1"), sea2: colour("--sea-2"), bulkTint: colour("--bulk-tint"),
  };
  for (const name of ["http", "socket", "events", "grpc", "bulk", "ink", "soft", "faint", "line", "panel"]) {
    style[name] = colour(`--${name}`);
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readStyle);

// ---- What the worker measured.
const isBusy = (at) => busy.some(([from, to]) => at >= from && at <= (to ?? Infinity));

function keep(kind, samples) {
  for (const [at, ms] of samples) {
    const list = kept[kind][isBusy(at) ? "busy" : "quiet"];
    list.push(ms);
    if (list.length > KEPT) list.shift();
  }
}

const WAYS = { http: ["both"], socket: ["both"], events: ["back"], grpc: ["both", "back"] };

function take({ data }) {
  for (const kind of KINDS) {
    const { samples } = data[kind];
    if (samples.length > 0) heard = Date.now();
    keep(kind, samples);
    cards[kind].series.add(samples);
    for (const _ of samples) for (const way of WAYS[kind]) picture.send(kind, way);
    tell(kind, data[kind]);
  }
}

function put(element, number, unit) {
  element.innerHTML = "";
  element.append(number);
  if (!unit) return;
  const small = document.createElement("small");
  small.textContent = unit;
  element.append(small);
}

const number = (n) => n.toLocaleString("en");

function tell(kind, { done, wrong, lost, value }) {
  const card = cards[kind];
  const recent = card.series.last(2000);
  if (kind === "events" && value !== null) {
    const time = new Date(value);
    put(card.now, time.toLocaleTimeString("en-GB"), `.${Math.floor(time.getMilliseconds() / 100)}`);
  } else if (kind === "grpc" && value !== null) {
    if (value > 0) put(card.now, (value / 1048576).toFixed(1), "MiB");
    else put(card.now, number(done), "readings");
  } else if (kind !== "events" && kind !== "grpc") {
    put(card.now, ...duration(quantile(recent, 0.5)));
  }
  const all = card.series.last(Infinity);
  const [half, most] = [0.5, 0.99].map((q) => duration(quantile(all, q)));
  card.quantiles.textContent = `p50 ${half[0]}${half[1] === most[1] ? "" : ` ${half[1]}`}, p99 ${most.join(" ")}`;
  const [right, mixed, gone] = WORDS[kind];
  const counts = [[done, right], [wrong, mixed], [lost, gone]].filter(([n], i) => i === 0 || n > 0);
  card.count.textContent = counts.map(([n, word]) => `${number(n)} ${word}`).join(", ");
  card.count.classList.toggle("bad", counts.length > 1);
}

// ---- Before and while.
function compare() {
  const rows = KINDS.map((kind) => {
    const row = document.createElement("tr");
    row.dataset.kind = kind;
    row.innerHTML = `<th scope="row">${NAMES[kind]}</th><td class="quiet"></td><td class="quiet"></td>
      <td class="busy"></td><td class="busy"></td><td class="range" aria-hidden="true"><div class="plot"></div></td>`;
    $("#compare").append(row);
    return [kind, [...row.querySelectorAll("td")], $(".plot", row)];
  });
  return () => {
    for (const [kind, cells, plot] of rows) {
      plot.textContent = "";
      ["quiet", "busy"].forEach((when, i) => {
        const values = kept[kind][when];
        const ends = [0.5, 0.99].map((q) => quantile(values, q));
        ends.forEach((end, j) => { cells[i * 2 + j].textContent = end === null ? "–" : end.toFixed(end >= 100 ? 0 : end >= 1 ? 1 : 2); });
        if (values.length === 0) return;
        const bar = document.createElement("i");
        const [from, to] = ends.map((ms) => place(ms) * 100);
        bar.className = when;
        bar.style.left = `${from}%`;
        bar.style.width = `${to - from}%`;
        plot.append(bar);
      });
    }
  };
}

// ---- Bulk: it runs for as long as this page listens to how it goes.
function bulk() {
  const choices = $("#bulk"), rate = $("#rate"), total = $("#total"), frame = $(".rate");
  let pace = null;
  const stop = (words) => {
    source?.close();
    source = null;
    const open = busy.at(-1);
    if (open && open[1] === null) open[1] = Date.now();
    $("input[value=off]", choices).checked = true;
    delete frame.dataset.on;
    rate.textContent = words;
  };
  const start = (next) => {
    // Figures of another pace would tell nothing about this one.
    if (pace !== next) for (const kind of KINDS) kept[kind].busy = [];
    pace = next;
    let before = null;
    busy.push([Date.now(), null]);
    frame.dataset.on = "";
    rate.textContent = "starting";
    source = new EventSource(`/__demo/load?mbit=${pace}`);
    source.onmessage = ({ data }) => {
      const now = JSON.parse(data);
      if (before && now.seconds > before.seconds) {
        const perSecond = (now.bytes - before.bytes) / (now.seconds - before.seconds);
        rate.textContent = perSecond >= 1e9 ? `${(perSecond / 1e9).toFixed(2)} GB/s` : `${(perSecond / 1e6).toFixed(0)} MB/s`;
        total.textContent = `${(now.bytes / 1e9).toFixed(1)} GB so far`;
      }
      before = now;
    };
    source.onerror = () => stop("interrupted");
  };
  choices.addEventListener("change", ({ target }) => {
    stop("");
    if (target.value === "off") return;
    target.checked = true;
    start(target.value);
  });
  // A reloaded page begins quietly, whatever the browser remembers.
  stop("");
  return stop;
}

// ---- The state in a word.
function state() {
  const line = $("#state");
  const seconds = Math.floor((Date.now() - began) / 1000);
  const age = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const live = Date.now() - heard < 2000;
  const next = live ? "live" : heard === 0 && seconds < 3 ? "starting" : "lost";
  line.dataset.state = next;
  $("span", line).textContent = { live: `Live for ${age}`, starting: "Connecting", lost: "Nothing comes through; trying again" }[next];
}

readStyle();
const stopBulk = bulk();
const showComparison = compare();
const worker = new Worker("/probe.js");
worker.onmessage = take;
// What the page costs while it loads says nothing about the tunnel.
setTimeout(() => worker.postMessage("start"), 500);
// A page that nobody sees holds nothing open: a browser has few connections to share.
document.addEventListener("visibilitychange", () => {
  if (document.hidden && source) stopBulk("");
  worker.postMessage(document.hidden ? "stop" : "start");
});
watchFlight();
setInterval(() => { showComparison(); state(); }, 500);

let last = 0;
function frame(now) {
  requestAnimationFrame(frame);
  if (now - last < FRAME) return;
  last = now;
  const old = Date.now() - 60_000;
  busy = busy.filter(([, to]) => to === null || to > old);
  picture.draw(style, source !== null);
  for (const kind of KINDS) cards[kind].series.draw(style, busy);
}
requestAnimationFrame(frame);
