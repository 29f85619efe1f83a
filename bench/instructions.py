#!/usr/bin/env python3
"""Counts the instructions that one thing costs each side, and compares with what is recorded.

    python3 bench/instructions.py            # fails when something costs more than is recorded
    python3 bench/instructions.py --record   # writes bench/instructions.json anew

Counts do not depend on how busy the machine is, so a change that makes the hot path longer is
noticed on any machine. They say nothing of the kernel, of caches, of waiting: for these there
is bench/run.py. Counted by callgrind, as the difference of two runs of different length, so
that what a connection costs once cancels.
"""

import argparse
import contextlib
import json
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import peers
from process import LOAD, ROOT, TARGET, Failed, Process, drive, end_all, on_signals

RECORD = ROOT / "bench" / "instructions.json"
EXCHANGES = TARGET / "examples" / "exchanges"


@dataclass(frozen=True)
class Scenario:
    """Something that is done again and again."""

    title: str
    kind: str
    """What testkit-load calls it."""
    streams: int
    short: int
    """Things in the short run, and in the long one."""
    long: int
    tolerance: float
    """The share that a count may grow by: over three times what wake-ups change from run to run."""


MUX = Scenario("exchange without a transport", "", 0, 100, 1100, 0.01)
SCENARIOS = {
    "get": Scenario("small HTTP request, one at a time", "get", 1, 100, 600, 0.05),
    "get-32": Scenario("small HTTP request, 32 at once", "get", 32, 640, 3840, 0.03),
    "unary": Scenario("gRPC call, one at a time", "unary", 1, 100, 600, 0.08),
    "echo": Scenario("WebSocket message to and fro", "echo", 1, 200, 1200, 0.08),
    "down": Scenario("MiB of a download", "down", 1, 8, 40, 0.15),
}


def valgrind(words: list, out: pathlib.Path) -> list:
    """The command that counts the instructions of `words`."""
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *words]


def total(files) -> int:
    """The instructions in files of callgrind."""
    found = [re.search(r"^(?:summary|totals): (\d+)", file.read_text(errors="replace"), re.M) for file in files]
    return sum(int(match[1]) for match in found if match)


class Side:
    """One side of a tunnel while its instructions are counted."""

    def __init__(self, process: Process, out: pathlib.Path):
        self.process, self.out = process, out

    def control(self, what: str) -> None:
        words = ["callgrind_control", what, str(self.process.child.pid)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(words)}: {done.stdout} {done.stderr}")

    def take(self) -> int:
        """The instructions since the last time; counting begins anew."""
        before = set(self.out.parent.glob(f"{self.out.name}.*"))
        self.control("--dump")
        return total(set(self.out.parent.glob(f"{self.out.name}.*")) - before)


@contextlib.contextmanager
def tunnel(folder: pathlib.Path):
    """A backend behind a server and a client, both under callgrind."""
    outs = [folder / "server.out", folder / "client.out"]
    words = iter(outs)
    with peers.tunnel(folder, wrap=lambda command: valgrind(command, next(words)), patience=60) as peer:
        yield peer, [Side(process, out) for process, out in zip(peer.processes, outs, strict=True)]


def load(peer, kind: str, streams: int, count: int, sides: list[Side]) -> list[int]:
    """The instructions of each side for `count` things."""
    for side in sides:
        side.take()
    words = [kind, peer.grpc if kind == "unary" else peer.http, "--streams", streams]
    found, _ = drive([*words, "--connections", 1, "--seconds", 120, "--count", count], 150)
    if found["failed"]:
        raise Failed(f"{kind}: {found['failed']} failed, first with: {found['error']}")
    return [side.take() for side in sides]


def of_each(peer, sides: list[Side], of: Scenario) -> list[int]:
    """The instructions of one thing on each side: the median of three differences."""
    load(peer, of.kind, of.streams, of.short, sides)
    rounds = []
    for _ in range(3):
        few, many = (load(peer, of.kind, of.streams, count, sides) for count in (of.short, of.long))
        rounds.append([(b - a) / (of.long - of.short) for a, b in zip(few, many, strict=True)])
    return [round(sorted(each)[1]) for each in zip(*rounds, strict=True)]


def alone(folder: pathlib.Path) -> int:
    """The instructions of one exchange between two ends without a transport."""
    counts = []
    for count in (MUX.short, MUX.long):
        out = folder / f"alone-{count}"
        subprocess.run(valgrind([EXCHANGES, str(count)], out), check=True, capture_output=True)
        counts.append(total([out]))
    return round((counts[1] - counts[0]) / (MUX.long - MUX.short))


def count() -> dict:
    """All counts, by name."""
    with tempfile.TemporaryDirectory(prefix="strait-instructions-") as name:
        folder = pathlib.Path(name)
        found = {"mux": {"both ends": alone(folder)}}
        with tunnel(folder) as (peer, sides):
            for name, of in SCENARIOS.items():
                server, client = of_each(peer, sides, of)
                found[name] = {"server": server, "client": client}
    return found


def ground() -> str:
    """What counts depend on beside the code: the compiler, and how memory is copied."""
    said = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    copies = [flag for flag in ("avx2", "erms") if flag in flags]
    return ", ".join([said.stdout.strip(), " ".join(platform.libc_ver()), *copies])


def judge(found: dict, recorded: dict) -> bool:
    """Prints all counts beside the recorded ones; whether none has grown."""
    fine = True
    for name, sides in found.items():
        of = MUX if name == "mux" else SCENARIOS[name]
        for side, now in sides.items():
            before = recorded.get(name, {}).get(side)
            change = (now - before) / before if before else 0.0
            grown = before is None or change > of.tolerance
            verdict = "GROWN" if grown else "less: record it" if change < -of.tolerance else ""
            print(f"{of.title:36} {side:10} {now:>9,} instructions  {change:+6.1%}  {verdict}".rstrip())
            fine &= not grown
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the counts down instead of comparing them")
    told = parser.parse_args()
    on_signals()
    try:
        if not pathlib.Path(LOAD).exists() or not EXCHANGES.exists():
            raise Failed("build first: cargo build --release -p strait -p testkit && "
                         "cargo build --release -p strait-mux --example exchanges")
        found = count()
    except Failed as failure:
        print(f"instructions: {failure}", file=sys.stderr)
        return 1
    finally:
        end_all()
    if told.record:
        RECORD.write_text(json.dumps({"ground": ground(), "counts": found}, indent=2) + "\n")
    recorded = json.loads(RECORD.read_text())
    fine = judge(found, recorded["counts"])
    if recorded["ground"] != ground():
        print(f"recorded with {recorded['ground']}; here is {ground()}: shown, not judged")
        return 0
    if not fine:
        print("The hot path got longer. If that is the price of something wanted, record it and say so in CHANGELOG.md:\n"
              "    python3 bench/instructions.py --record")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
