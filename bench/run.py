#!/usr/bin/env python3
"""Measures Strait and its peers side by side on this machine: see README.md here.

    python3 bench/run.py                                   # everything; about an hour
    python3 bench/run.py --quick                           # one short round
    python3 bench/run.py --only get --peers strait,rathole,nginx --rounds 3
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time

import peers
import report
import workloads
from process import ROOT, Failed, end_all, free_port, install, on_signals

# A cell that more than this was taken from, in cores, is measured again.
DISTURBED = 0.1
AGAIN = 2
GROUPS = {w.name.split("-")[0] for w in workloads.ALL} | {"isolation"}


def say(text: str) -> None:
    """Tells people how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def words(known) -> callable:
    """Reads a list of words, each of which must be known."""

    def read(text: str) -> list[str]:
        found = [word.strip() for word in text.split(",") if word.strip()]
        wrong = [word for word in found if word not in known]
        if wrong or not found:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong) or 'nothing'} is not known; there is {', '.join(known)}")
        return found

    return read


def arguments() -> argparse.Namespace:
    """The command line."""
    names = sorted(GROUPS | {w.name for w in workloads.ALL})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=words(names), help=f"what to measure: {', '.join(names)}")
    parser.add_argument("--peers", type=words(list(peers.PEERS)), default=list(peers.PEERS),
                        help=f"whom to measure: {', '.join(peers.PEERS)}; Strait always is")
    parser.add_argument("--rounds", type=int, help="how often, for medians [default: 5]")
    parser.add_argument("--seconds", type=float, help="length of one cell [default: 5]")
    parser.add_argument("--quick", action="store_true", help="one round of one second: shows that it works, measures nothing")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results", help="folder of the results")
    told = parser.parse_args()
    told.rounds = told.rounds or (1 if told.quick else 5)
    told.seconds = told.seconds or (1 if told.quick else 5)
    if not (1 <= told.rounds <= 100 and 1 <= told.seconds <= 600):
        parser.error("allowed: 1 to 100 rounds of 1 to 600 seconds")
    told.peers = [name for name in peers.PEERS if name in told.peers or name == "strait"]
    return told


def wanted(name: str, only: list[str] | None) -> bool:
    """Whether a workload was asked for, by its name or its group's."""
    return only is None or name in only or name.split("-")[0] in only


def cell(workload, peer, around, again: int):
    """One cell, measured up to `again` times more while the machine is disturbed; the quietest counts."""
    best = None
    for _ in range(1 + again):
        figures, cost = workload.measure(peer, around)
        if best is None or cost.others < best[1].others:
            best = figures, cost
        if cost.others <= DISTURBED:
            break
        say(f"  others took {cost.others:.2f} cores")
    return best


def one_round(number: int, told, running: dict, around, cells) -> None:
    """Measures all workloads through all peers, in turn."""
    names = list(running)
    for workload in (w for w in workloads.ALL if wanted(w.name, told.only)):
        # Another one begins each round: what drifts must not always meet the same one.
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            try:
                figures, cost = cell(workload, running[name], around, 0 if told.quick else AGAIN)
            except Failed as failure:
                say(f"{workload.name} {name}: FAILED: {failure}")
                cells.failed[workload.name, name] = str(failure)
                continue
            cells.add(workload.name, name, figures, cost)
            shown = "  ".join(f"{report.UNITS[key][0]} {report.UNITS[key][1](value)}" for key, value in figures.items())
            say(f"round {number + 1}/{told.rounds}  {workload.name:<10} {name:<12} {shown}")


def measure(told, folder: pathlib.Path, cells) -> dict | None:
    """All of it; returns what was found about isolation."""
    if any(wanted(w.name, told.only) for w in workloads.ALL):
        target, running = free_port(), {}
        backend = peers.backend(target, folder)
        for name in told.peers:
            try:
                running[name] = peers.start(name, target, folder)
            except Failed as failure:
                if name == "strait":
                    raise
                say(f"{name} is left out: {failure}")
        for number in range(told.rounds):
            around = workloads.Around(told.seconds, backend.pids(), target, folder)
            others = [pid for peer in running.values() for pid in peer.pids()]
            around.bench = backend.pids() + others
            one_round(number, told, running, around, cells)
        end_all()
    if wanted("isolation", told.only):
        return workloads.isolation(told.peers, folder, told.rounds, told.seconds, say)
    return None


def write(told, cells, isolation: dict | None) -> pathlib.Path:
    """Writes Markdown, a picture and JSON; returns the Markdown's place."""
    told.out.mkdir(parents=True, exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%d')}; " \
              f"{told.rounds} rounds of {told.seconds:g} s; backend, load generator and tunnel on one machine."
    about = {"machine": machine, "rounds": told.rounds, "isolation": isolation}
    marked = {name for name, kind in peers.PEERS.items() if not kind.terminates}
    text = report.markdown(cells, workloads.ALL, told.peers, marked, about)
    (told.out / "results.md").write_text(text)
    (told.out / "results.svg").write_text(report.svg(cells, workloads.ALL, told.peers, about))
    raw = {f"{workload} {peer}": [[figures, vars(cost)] for figures, cost in rounds]
           for (workload, peer), rounds in cells.rounds.items()}
    (told.out / "results.json").write_text(json.dumps({"cells": raw, "about": about}, indent=1))
    return told.out / "results.md"


def main() -> int:
    """Runs the bench."""
    told, cells = arguments(), report.Cells()
    on_signals()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="strait-bench-"))
    # The workers of nginx are nobody, and read their files here.
    folder.chmod(0o755)
    try:
        commands = {command for name in told.peers for command in peers.PEERS[name].commands}
        install(commands | {"wrk", "openssl"})
        isolation = measure(told, folder, cells)
        place = write(told, cells, isolation)
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    finally:
        end_all()
        shutil.rmtree(folder, ignore_errors=True)
    print(place.read_text())
    say(f"written: {place}, and results.svg and results.json beside it")
    return 1 if cells.failed else 0


if __name__ == "__main__":
    sys.exit(main())
