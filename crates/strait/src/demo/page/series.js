// Latencies: kept for a while, told as quantiles, drawn as points over time.

export const SPAN = 30_000;
const LOW = 0.1, HIGH = 1000;

/** Position of `ms` on a logarithmic scale: 0 is 0.1 ms, 1 is a second. */
export const place = (ms) =>
  Math.min(1, Math.max(0, Math.log(ms / LOW) / Math.log(HIGH / LOW)));

/** The value below which the share `q` of `values` lies; null when there are none. */
export function quantile(values, q) {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];
}

/** A duration for people: ["1.3", "ms"]. */
export function duration(ms) {
  if (ms === null) return ["–", ""];
  if (ms >= 1000) return [(ms / 1000).toFixed(1), "s"];
  return [ms.toFixed(ms >= 100 ? 0 : ms >= 1 ? 1 : 2), "ms"];
}

export class Series {
  constructor(canvas, tone, caption) {
    this.caption = caption;
    this.canvas = canvas;
    this.tone = tone;
    this.points = [];
  }

  add(samples) {
    this.points.push(...samples);
    const old = Date.now() - SPAN;
    while (this.points.length > 0 && this.points[0][0] < old) this.points.shift();
  }

  /** Values of the last `ms` milliseconds. */
  last(ms) {
    const from = Date.now() - ms;
    return this.points.filter(([at]) => at >= from).map(([, value]) => value);
  }

  draw(style, busy) {
    const { canvas } = this;
    const ratio = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const left = 26, now = Date.now();
    const x = (at) => left + (1 - (now - at) / SPAN) * (width - left);
    const y = (ms) => height - 4 - place(ms) * (height - 16);
    pen.fillStyle = style.bulkTint;
    for (const [from, to] of busy) {
      const begin = Math.max(left, x(from));
      const end = Math.min(width, x(to ?? now));
      if (end > begin) pen.fillRect(begin, 0, end - begin, height);
    }
    pen.font = `10.5px ${style.font}`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const mark of [1, 10, 100]) {
      pen.fillStyle = style.line;
      pen.fillRect(left, Math.round(y(mark)), width - left, 1);
      pen.fillStyle = style.faint;
      pen.fillText(String(mark), left - 6, y(mark));
    }
    pen.textAlign = "left";
    pen.fillText(this.caption, left + 4, 8);
    pen.fillStyle = style[this.tone];
    pen.globalAlpha = 0.62;
    for (const [at, ms] of this.points) {
      const px = x(at);
      if (px < left) continue;
      pen.beginPath();
      pen.arc(px, y(ms), 1.5, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }
}
