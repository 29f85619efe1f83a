// The picture: lanes of many visitors that narrow to one stream and widen again.

const LANES = [
  { kind: "http", from: "GET /hello", to: "HTTP" },
  { kind: "socket", from: "WebSocket", to: "echo" },
  { kind: "bulk", from: "downloads", to: "bulk" },
  { kind: "events", from: "events", to: "clock" },
  { kind: "grpc", from: "gRPC calls", to: "Sampler" },
];
const TRAVEL = 900;
const MOST = 160;
const STEPS = 40;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.dots = [];
    this.size = "";
  }

  /** Sends a dot along a lane: "out" to the service, "back" from it, or both in turn. */
  send(kind, way) {
    if (still.matches || this.dots.length >= MOST) return;
    this.dots.push({ kind, way, born: performance.now() + Math.random() * 90 });
  }

  draw(style, bulkOn) {
    const { canvas } = this;
    const ratio = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    const size = `${width} ${height} ${ratio}`;
    if (size !== this.size) {
      this.size = size;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      this.lay(width, height);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.water(pen, style);
    this.lanes(pen, style, bulkOn);
    this.gates(pen, style);
    this.move(pen, style);
  }

  lay(width, height) {
    const narrow = width < 640;
    const side = narrow ? 84 : 92;
    const server = width * (narrow ? 0.41 : 0.345), client = width - server;
    const top = 24, bottom = height - (narrow ? 16 : 34), middle = (top + bottom) / 2;
    const apart = (bottom - top) / (LANES.length - 1), close = 7;
    this.shape = { width, side, server, client, middle, top, bottom, close, narrow };
    this.tracks = new Map(LANES.map(({ kind }, i) => {
      const wide = top + i * apart, tight = middle + (i - 2) * close;
      const points = [];
      for (let s = 0; s <= STEPS; s += 1) points.push(bend(side, wide, server, tight, s / STEPS));
      for (let s = 0; s <= STEPS; s += 1) points.push(bend(client, tight, width - side, wide, s / STEPS));
      return [kind, measure(points)];
    }));
  }

  water(pen, style) {
    const { width, side } = this.shape;
    const upper = this.tracks.get("http").points, lower = this.tracks.get("grpc").points;
    const sea = pen.createLinearGradient(side, 0, width - side, 0);
    sea.addColorStop(0, style.sea1);
    sea.addColorStop(1, style.sea2);
    pen.beginPath();
    for (const [x, y] of upper) pen.lineTo(x, y - 11);
    for (const [x, y] of [...lower].reverse()) pen.lineTo(x, y + 11);
    pen.closePath();
    pen.globalAlpha = 0.1;
    pen.fillStyle = sea;
    pen.fill();
    pen.globalAlpha = 1;
  }

  lanes(pen, style, bulkOn) {
    const { width, side, narrow } = this.shape;
    pen.font = `${narrow ? 11 : 12.5}px ${style.font}`;
    pen.textBaseline = "middle";
    for (const { kind, from, to } of LANES) {
      const { points } = this.tracks.get(kind);
      const quiet = kind === "bulk" && !bulkOn;
      pen.beginPath();
      for (const [x, y] of points) pen.lineTo(x, y);
      pen.strokeStyle = quiet ? style.faint : style[kind];
      pen.globalAlpha = quiet ? 0.35 : 0.5;
      pen.lineWidth = 1.25;
      pen.stroke();
      if (kind === "bulk" && bulkOn) this.flow(pen, style);
      pen.globalAlpha = 1;
      pen.fillStyle = quiet ? style.faint : style.soft;
      pen.textAlign = "right";
      pen.fillText(kind === "bulk" && bulkOn ? `8 ${from}` : from, side - 10, points[0][1]);
      pen.textAlign = "left";
      pen.fillText(to, width - side + 10, points[0][1]);
    }
  }

  /** Bulk is too much for dots: a broad band that streams towards the visitors. */
  flow(pen, style) {
    pen.save();
    pen.globalAlpha = 0.75;
    pen.lineWidth = 4;
    pen.lineCap = "round";
    pen.setLineDash([10, 9]);
    pen.lineDashOffset = still.matches ? 0 : (performance.now() / 6) % 19;
    pen.strokeStyle = style.bulk;
    pen.stroke();
    pen.restore();
  }

  gates(pen, style) {
    const { server, client, middle, width, narrow } = this.shape;
    const tall = 62;
    pen.textAlign = "center";
    pen.font = `600 ${narrow ? 12 : 13}px ${style.font}`;
    for (const [x, name] of [[server, "server"], [client, "client"]]) {
      pen.beginPath();
      pen.roundRect(x - 5, middle - tall / 2, 10, tall, 5);
      pen.fillStyle = style.panel;
      pen.fill();
      pen.lineWidth = 1.25;
      pen.strokeStyle = style.faint;
      pen.stroke();
      pen.fillStyle = style.ink;
      pen.fillText(name, x, middle - tall / 2 - 13);
    }
    pen.fillStyle = style.ink;
    if (!narrow) pen.fillText("one gRPC stream", width / 2, middle - tall / 2 - 13);
    else pen.fillText("one stream", width / 2, middle + tall / 2 + 4);
  }

  move(pen, style) {
    const now = performance.now();
    this.dots = this.dots.filter(({ born, way }) => now - born < (way === "both" ? 2 : 1) * TRAVEL);
    for (const { kind, way, born } of this.dots) {
      const gone = (now - born) / TRAVEL;
      if (gone < 0) continue;
      const back = way === "back" || gone > 1;
      const at = along(this.tracks.get(kind), back ? 1 - (gone % 1) : gone);
      pen.beginPath();
      pen.arc(at[0], at[1], 3, 0, 7);
      // Hollow on the way there, full on the way back.
      pen.fillStyle = back ? style[kind] : style.panel;
      pen.fill();
      pen.lineWidth = 1.5;
      pen.strokeStyle = style[kind];
      pen.stroke();
    }
  }
}

/** A point of the curve that leaves and arrives level. */
function bend(x0, y0, x1, y1, t) {
  const ease = t * t * (3 - 2 * t);
  return [x0 + (x1 - x0) * t, y0 + (y1 - y0) * ease];
}

function measure(points) {
  const lengths = [0];
  for (let i = 1; i < points.length; i += 1) {
    const [x0, y0] = points[i - 1], [x1, y1] = points[i];
    lengths.push(lengths[i - 1] + Math.hypot(x1 - x0, y1 - y0));
  }
  return { points, lengths };
}

function along({ points, lengths }, share) {
  const want = share * lengths[lengths.length - 1];
  let i = 1;
  while (i < lengths.length - 1 && lengths[i] < want) i += 1;
  const part = (want - lengths[i - 1]) / (lengths[i] - lengths[i - 1] || 1);
  const [x0, y0] = points[i - 1], [x1, y1] = points[i];
  return [x0 + (x1 - x0) * part, y0 + (y1 - y0) * part];
}
