"""What processes and the machine cost, from /proc."""

import os
import time
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def family(pid: int) -> list[int]:
    """A process and all that it has started: servers share their work among processes."""
    found = [pid]
    for parent in found:
        for thread in os.listdir(f"/proc/{parent}/task") if os.path.isdir(f"/proc/{parent}/task") else []:
            found += map(int, _read(f"/proc/{parent}/task/{thread}/children").split())
    return found


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, of all its threads."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return 0.0
    fields = stat.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(pids: list[int]) -> float:
    """Resident MiB of processes. Pages that they share count for each."""
    kib = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/status").splitlines():
            if line.startswith("VmRSS:"):
                kib += int(line.split()[1])
    return kib / 1024


def machine() -> float:
    """CPU seconds that the whole machine has spent, and what other machines took from it."""
    fields = [int(field) for field in _read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, soft, steal = fields
    return (user + nice + system + irq + soft + steal) / TICKS


@dataclass
class Cost:
    """What one cell cost."""

    seconds: float
    tunnel: float
    """CPU seconds of the tunnel's processes."""
    generator: float
    """CPU seconds of the load generator."""
    others: float
    """Cores that were taken from outside."""
    idle: float | None
    """Cores that nobody used; None where it was too short to be seen."""

    @property
    def generator_cores(self) -> float:
        """How much of a core the load generator was busy. It has one."""
        return self.generator / max(self.seconds, 1e-9)


class Meter:
    """Watches the processes of a peer, and of the bench, from its making to read()."""

    def __init__(self, tunnel: list[int], bench: list[int]):
        self.tunnel, self.bench = tunnel, sorted(set(bench) - set(tunnel))
        self.began = time.monotonic()
        self.machine = machine()
        self.before = self._cpu()

    def _cpu(self) -> tuple[float, float]:
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return sum(map(cpu, self.tunnel)), sum(map(cpu, self.bench)) + mine

    def read(self, generator: float) -> Cost:
        """What it cost so far; the generator, which has ended, took `generator` seconds."""
        seconds = time.monotonic() - self.began
        tunnel, bench = (now - was for now, was in zip(self._cpu(), self.before))
        # The generator is a child that was waited for, so it is in the bench's own time.
        # In next to no time there is nothing to be seen but the coarseness of the clock.
        if seconds <= 0.1:
            return Cost(seconds, tunnel, generator, 0.0, None)
        spent = machine() - self.machine
        others = max(0.0, spent - tunnel - bench) / seconds
        return Cost(seconds, tunnel, generator, others, max(0.0, os.cpu_count() - spent / seconds))
