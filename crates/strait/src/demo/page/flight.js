// What is in flight on the stream, told by the node; hidden where nobody knows.

const EVERY = 1000;
const ROWS = 9;

const bytes = (n) => {
  const [unit, size] = n >= 1e9 ? ["GB", 1e9] : n >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  return n < 1000 ? `${n} B` : `${(n / size).toFixed(n / size >= 100 ? 0 : 1)} ${unit}`;
};

const age = (ms) => {
  if (ms < 1000) return `${ms} ms`;
  const seconds = Math.floor(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
};

function kind({ protocol, what }) {
  if (/grpc/i.test(protocol)) return "grpc";
  if (/websocket/i.test(protocol)) return "socket";
  if (what.includes("/download")) return "bulk";
  return /clock|__demo/.test(what) ? "events" : "http";
}

/** One row for all requests that ask for the same, in a steady order. */
function grouped(exchanges) {
  const groups = new Map();
  for (const exchange of exchanges) {
    const { age_ms, bytes_in, bytes_out } = exchange;
    // What the page needs for itself is one row.
    const what = exchange.what.replace(/(__demo)\/.*/, "$1/…");
    const group = groups.get(what) ?? { what, kind: kind(exchange), many: 0, age: 0, bytes: 0 };
    group.many += 1;
    group.age = Math.max(group.age, age_ms);
    group.bytes += bytes_in + bytes_out;
    groups.set(what, group);
  }
  return [...groups.values()].sort((a, b) => (a.what < b.what ? -1 : 1));
}

function row(group) {
  const row = document.createElement("tr");
  row.dataset.kind = group.kind;
  const name = document.createElement("th");
  name.scope = "row";
  name.title = group.what;
  name.append(group.what);
  if (group.many > 1) {
    const many = document.createElement("small");
    many.textContent = `×${group.many}`;
    name.append(many);
  }
  const cells = [age(group.age), bytes(group.bytes)].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  row.append(name, ...cells);
  return row;
}

function show({ in_flight, sessions, totals }) {
  const many = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
  const round = sessions[0]?.rtt_us > 0 ? `, ping ${(sessions[0].rtt_us / 1000).toFixed(1)} ms` : "";
  document.querySelector("#flight-what").textContent =
    `${many(totals.open, "request")} on ${many(sessions.length, "stream")}${round}; ${totals.requests.toLocaleString("en")} so far`;
  const groups = grouped(in_flight);
  const rows = groups.slice(0, ROWS).map(row);
  document.querySelector("#flight-list").replaceChildren(...rows);
}

/** Asks again and again while the page is seen; gives up where nobody knows. */
export function watchFlight() {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("/__demo/status", { signal: AbortSignal.timeout(EVERY * 5) });
      const known = answer.status === 200;
      if (answer.status === 204) clearInterval(timer);
      document.querySelector("#flight").hidden = !known;
      if (known) show(await answer.json());
    } catch {
      document.querySelector("#flight").hidden = true;
    }
  }, EVERY);
}
