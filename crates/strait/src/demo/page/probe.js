// Measures from a worker, so that drawing the page does not count as latency.
//
// Everything is open-loop: what is due is sent, whether the last one is back or not.
// Posts batches: { kind: [[time, milliseconds], ...] } with counts; times are those of
// the wall clock in milliseconds.

const EVERY = 100;
const AGAIN = 1000;
const PATIENCE = 10_000;

const wall = () => performance.timeOrigin + performance.now();
const fresh = () => ({ samples: [], done: 0, wrong: 0, lost: 0, value: null });
const kinds = { http: fresh(), socket: fresh(), events: fresh(), grpc: fresh() };
let stops = [];

function record(kind, at, ms) {
  kinds[kind].samples.push([at, ms]);
  kinds[kind].done += 1;
}

// ---- HTTP: small requests; each answer names its request. How long one took is told
// by the browser's network timing, from the request on the wire to the end of the answer.
function http() {
  const kind = kinds.http;
  let n = 0;
  const watch = new PerformanceObserver((list) => {
    for (const { name, requestStart, responseEnd } of list.getEntries()) {
      if (!name.includes("/hello?") || requestStart === 0) continue;
      kind.samples.push([performance.timeOrigin + requestStart, responseEnd - requestStart]);
    }
  });
  watch.observe({ type: "resource" });
  const timer = setInterval(async () => {
    const mine = (n += 1);
    try {
      const answer = await fetch(`/hello?n=${mine}`, { signal: AbortSignal.timeout(PATIENCE) });
      const body = await answer.json();
      if (body.n === mine) kind.done += 1;
      else kind.wrong += 1;
    } catch {
      kind.lost += 1;
    }
  }, EVERY);
  return () => {
    clearInterval(timer);
    watch.disconnect();
  };
}

// ---- WebSocket: numbered messages that must come back in order.
function socket() {
  const kind = kinds.socket;
  let timer, again, ended = false, line;
  const open = () => {
    let sent = 0, back = 0;
    const due = new Map();
    line = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/echo`);
    line.onopen = () => {
      timer = setInterval(() => {
        sent += 1;
        due.set(sent, wall());
        line.send(String(sent));
      }, EVERY);
    };
    line.onmessage = ({ data }) => {
      const number = Number(data), at = due.get(number);
      due.delete(number);
      back += 1;
      if (number !== back) kind.wrong += 1;
      else record("socket", at, wall() - at);
    };
    line.onclose = () => {
      clearInterval(timer);
      if (ended) return;
      kind.lost += due.size;
      again = setTimeout(open, AGAIN);
    };
  };
  open();
  return () => {
    ended = true;
    clearInterval(timer);
    clearTimeout(again);
    line.close(1000);
  };
}

// ---- Events that must come without a gap.
function stream(path, kind, take) {
  let source, again, last = 0;
  const open = () => {
    last = 0;
    source = new EventSource(path);
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (last !== 0 && event.n !== last + 1) kinds[kind].wrong += 1;
      take(event, wall(), last === 0);
      last = event.n;
    };
    source.onerror = () => {
      if (last !== 0) kinds[kind].lost += 1;
      source.close();
      again = setTimeout(open, AGAIN);
    };
  };
  open();
  return () => {
    clearTimeout(again);
    source.close();
  };
}

// The two clocks need not agree: an event is late compared with the earliest one.
function clock() {
  let earliest = Infinity;
  return stream("/clock", "events", (event, at, first) => {
    const way = at - event.at_us / 1000;
    // Behind a new stream there may be a new clock.
    if (first) earliest = Infinity;
    earliest = Math.min(earliest, way);
    kinds.events.value = event.unix_ms;
    record("events", at, way - earliest);
  });
}

function readings() {
  return stream("/__demo/readings", "grpc", (event, at) => {
    kinds.grpc.value = event.resident_bytes;
    record("grpc", at, event.echo_us / 1000);
  });
}

setInterval(() => {
  if (stops.length === 0) return;
  postMessage(kinds);
  for (const kind of Object.values(kinds)) kind.samples = [];
}, EVERY);

onmessage = ({ data }) => {
  for (const stop of stops) stop();
  stops = data === "start" ? [http(), socket(), clock(), readings()] : [];
};
