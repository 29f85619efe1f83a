"""What was measured, for people: Markdown with ratios first, and a picture."""

import html
import statistics

UNITS = {
    "rate": ("per second", lambda v: f"{v / 1e3:.1f}k" if v >= 1e4 else f"{v:.0f}"),
    "p50_us": ("p50", lambda v: _time(v)),
    "p99_us": ("p99", lambda v: _time(v)),
    "cpu_us": ("CPU us each", lambda v: f"{v:.1f}"),
    "mb_per_s": ("MB/s", lambda v: f"{v:.0f}"),
    "kib_per_socket": ("KiB each", lambda v: f"{v:.1f}"),
    "start_ms": ("ms", lambda v: f"{v:.0f}"),
    "rss_mib": ("MiB idle", lambda v: f"{v:.1f}"),
    "binary_mib": ("MiB program", lambda v: f"{v:.1f}"),
}
# A load generator of one thread that is busier than this is what was measured.
GENERATOR_FULL = 0.9
OTHERS = 0.1


def _time(micros: float) -> str:
    return f"{micros:.0f} us" if micros < 1000 else f"{micros / 1e3:.2f} ms"


class Cells:
    """All cells: (workload, peer) -> one (figures, cost) for each round."""

    def __init__(self):
        self.rounds: dict[tuple[str, str], list] = {}
        self.failed: dict[tuple[str, str], str] = {}

    def add(self, workload: str, peer: str, figures: dict, cost) -> None:
        self.rounds.setdefault((workload, peer), []).append((figures, cost))

    def values(self, workload: str, peer: str, figure: str) -> list[float]:
        return [found[figure] for found, _ in self.rounds.get((workload, peer), []) if figure in found]

    def median(self, workload: str, peer: str, figure: str) -> float | None:
        found = self.values(workload, peer, figure)
        return statistics.median(found) if found else None

    def ratio(self, workload, peer: str, base: str) -> float | None:
        """Median of the ratios of each round: what drifts from round to round cancels."""
        mine, theirs = (self.values(workload.name, name, workload.main) for name in (peer, base))
        pairs = [a / b for a, b in zip(mine, theirs) if b]
        return statistics.median(pairs) if pairs else None


def _table(rows: list[list[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rest]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _ratios(cells: Cells, workloads: list, names: list[str], marked: set[str], base: str) -> str:
    shown = [w for w in workloads if any(cells.values(w.name, n, w.main) for n in names)]
    rows = [[f"against {base}", *names]]
    for workload in shown:
        row = [workload.title + ("" if workload.more_is_better else " (less is better)")]
        for name in names:
            ratio = cells.ratio(workload, name, base)
            mark = " *" if workload.l7_only and name in marked else ""
            row.append("failed" if (workload.name, name) in cells.failed else "-" if ratio is None else f"{ratio:.2f}{mark}")
        rows.append(row)
    return _table(rows)


def _spread(cells: Cells, workload: str, name: str, figure: str) -> str:
    found, show = cells.values(workload, name, figure), UNITS[figure][1]
    if not found:
        return "-"
    text = show(statistics.median(found))
    return text if len(found) == 1 else f"{text} ({show(min(found))} - {show(max(found))})"


def _notes(cells: Cells, workload: str, name: str) -> str:
    notes, costs = [], [cost for _, cost in cells.rounds.get((workload, name), [])]
    if costs and max(cost.generator_cores for cost in costs) > GENERATOR_FULL:
        notes.append("load generator at its limit")
    if costs and max(cost.others for cost in costs) > OTHERS:
        notes.append("disturbed")
    if (workload, name) in cells.failed:
        notes.append("failed: " + " ".join(cells.failed[workload, name].split())[:160].replace("|", "/"))
    return "; ".join(notes)


def _details(cells: Cells, workload, names: list[str]) -> str:
    figures = [f for f in UNITS if any(cells.values(workload.name, n, f) for n in names)]
    rows = [["", *(UNITS[figure][0] for figure in figures), "cores idle", "CPU of others", ""]]
    for name in names:
        costs = [cost for _, cost in cells.rounds.get((workload.name, name), [])]
        others = f"{max(cost.others for cost in costs):.2f}" if costs else "-"
        seen = [cost.idle for cost in costs if cost.idle is not None]
        idle = f"{statistics.median(seen):.2f}" if seen else "-"
        row = [name, *(_spread(cells, workload.name, name, figure) for figure in figures), idle, others]
        rows.append([*row, _notes(cells, workload.name, name)])
    return f"### {workload.title}\n\n{_table(rows)}"


def _isolation(found: dict) -> str:
    def millis(spread):
        if not spread:
            return "-"
        ends = f" ({spread['least']:.2f} - {spread['most']:.2f})" if found["runs"] > 1 else ""
        return f"{spread['median']:.2f}{ends}"

    by_name = {one["name"]: one for one in found["contestants"]}
    strait = by_name["strait"]["under_load"]["p99_ms"]["median"]
    direct = by_name.get("direct", {}).get("under_load", {}).get("p99_ms", {}).get("median")
    rows = [["", "p99 / strait", "p99 / direct", "p50 alone, ms", "p99 alone", "p50 under load", "p99 under load",
             "bulk MB/s", "grown MiB", "CPU of others"]]
    for name, one in by_name.items():
        alone, loaded = one["alone"], one["under_load"]
        p99 = loaded["p99_ms"]["median"]
        grown, bulk = one["grown_bytes"], one["bulk_bytes_per_second"]
        others = [phase["others_cores"]["most"] for phase in (alone, loaded) if phase["others_cores"]]
        rows.append([name, f"{p99 / strait:.2f}", f"{p99 / direct:.2f}" if direct else "-",
                     *(millis(phase[share]) for phase in (alone, loaded) for share in ("p50_ms", "p99_ms")),
                     f"{bulk['median'] / 1e6:.0f}", f"{grown['most'] / (1 << 20):.1f}" if grown else "-",
                     f"{max(others):.2f}" if others else "-"])
    title = (f"### Isolation: {found['rate_per_second']} small requests per second, beside {found['downloads']} "
             f"downloads and {found['stalled']} reader that never reads")
    return f"{title}\n\n{_table(rows)}"


READING = """How to read it: all figures are medians over {rounds} rounds; each round measures all peers in turn, so
that what drifts meets all of them. Compare figures of one run only. In brackets: the least and the most. "CPU us each" is
the CPU of all processes of the tunnel for one request or message (for one MB where bytes are measured). "Cores idle" is
what nobody used meanwhile: a peer that leaves much of it is held up by waiting, not by what it costs. "CPU of others" is
what other programs and other machines took, in cores, at most; "disturbed" marks more than a tenth of a core, after
every such cell was measured again. A row whose load generator (one thread) was busy all the time shows the generator's
limit as much as the peer's.
"""


def markdown(cells: Cells, workloads: list, names: list[str], marked: set[str], told: dict) -> str:
    """All tables; `marked` are the peers that carry bytes, `told` is what is said about the run."""
    shown = [w for w in workloads if any((w.name, n) in cells.rounds or (w.name, n) in cells.failed for n in names)]
    text = f"# Strait and its peers\n\n{told['machine']}\n\n"
    bases = [base for base in ("strait", "direct") if base in names] or names[:1]
    if shown:
        text += "".join(_ratios(cells, shown, names, marked, base) + "\n" for base in bases)
        if marked & set(names):
            text += ("\\* carries a caller's whole gRPC connection as bytes: no routing, no isolation of calls; "
                     "the peers of an L7 tunnel there are nginx and haproxy.\n\n")
    text += READING.format(rounds=told["rounds"]) + "\n"
    parts = [_isolation(told["isolation"])] if told.get("isolation") else []
    parts += [_details(cells, workload, names) for workload in shown]
    return text + "\n".join(parts)


COLOURS = {"strait": "#0072b2", "strait-tls": "#56b4e9", "strait-2": "#004c73", "strait-2-tls": "#a6d8f5", "direct": "#666666"}
OTHER = "#b9bec5"
BAR, WIDTH, LABEL = 18, 760, 120


def svg(cells: Cells, workloads: list, names: list[str], told: dict) -> str:
    """A block of bars for each workload."""
    blocks = []
    for workload in workloads:
        bars = [(name, cells.median(workload.name, name, workload.main)) for name in names]
        unit, show = UNITS[workload.main]
        blocks.append((workload.title, unit, show, workload.more_is_better, [bar for bar in bars if bar[1]]))
    if told.get("isolation"):
        bars = [(one["name"], one["under_load"]["p99_ms"]["median"] * 1e3) for one in told["isolation"]["contestants"]]
        blocks.insert(0, ("Small requests beside full-speed downloads", "p99", _time, False, bars))
    y, body = 10, []
    for title, unit, show, more, bars in (block for block in blocks if block[4]):
        y += 26
        better = "more is better" if more else "less is better"
        body.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(title)}: {unit} ({better})</text>')
        most = max(value for _, value in bars)
        y += 8
        for name, value in sorted(bars, key=lambda bar: bar[1], reverse=more):
            width = (WIDTH - LABEL - 100) * value / most
            body.append(
                f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>'
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 4}" fill="{COLOURS.get(name, OTHER)}"/>'
                f'<text x="{LABEL + width + 6:.1f}" y="{y + 12}">{show(value)}</text>'
            )
            y += BAR
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 14}" font-family="sans-serif" font-size="13">\n'
            f'<rect width="{WIDTH}" height="{y + 14}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n")
