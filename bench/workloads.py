"""What is measured: each workload drives one peer and returns its figures."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import peers
from measure import Cost, Meter, rss
from process import LOAD, STRAIT, Failed, drive, free_port, run

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass
class Around:
    """What a workload needs to know besides the peer."""

    seconds: float
    bench: list
    """Process ids of what belongs to the bench and not to a peer: the backend."""
    target: int
    """The port of the backend."""
    folder: object


@dataclass(frozen=True)
class Workload:
    """One row of cells. `measure(peer, around)` returns figures and what they cost."""

    name: str
    title: str
    main: str
    """The figure that ratios are made of."""
    measure: Callable
    more_is_better: bool = True
    l7_only: bool = False
    """Whether peers that carry bytes do less than what is measured: their rows get a mark."""


def _micros(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * UNITS[unit]


def _cell(peer, around, load: Callable) -> tuple[dict, Cost]:
    """Runs `load`, which returns (figures, things done or None, CPU seconds of the generator)."""
    meter = Meter(peer.pids(), around.bench)
    figures, count, generator = load()
    cost = meter.read(generator)
    if count and peer.processes:
        figures["cpu_us"] = cost.tunnel * 1e6 / count
    return figures, cost


def get(connections: int) -> Callable:
    """Small requests on kept connections."""

    def load(peer, seconds):
        words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
        said, generator = run([*words, f"http://{peer.http}/small"], seconds + 20)
        found = re.search(r"(\d+) requests in", said)
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        if not found or not int(found[1]) or wrong:
            raise Failed(f"wrk through {peer.name}: {said[-500:]}")
        figures = {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])}
        for share in ("50", "99"):
            figures[f"p{share}_us"] = _micros(re.search(rf"\n\s+{share}%\s+(\S+)", said)[1])
        errors = re.search(r"Socket errors: (.*)", said)
        if errors and not re.fullmatch(r"connect 0, read 0, write 0, timeout 0", errors[1]):
            raise Failed(f"wrk through {peer.name}: {errors[0]}")
        return figures, int(found[1]), generator

    return lambda peer, around: _cell(peer, around, lambda: load(peer, around.seconds))


def driven(kind: str, streams: int, connections: int = 1) -> Callable:
    """What testkit-load can do."""
    grpc = kind in ("unary", "stream")

    def load(peer, seconds):
        words = [kind, peer.grpc if grpc else peer.http, "--streams", streams, "--connections", connections]
        found, generator = drive([*words, "--seconds", seconds], seconds + 40)
        if found["failed"] > found["count"] / 100:
            raise Failed(f"{kind} through {peer.name}: {found['failed']} failed: {found['error']}")
        if kind in ("down", "up"):
            mebi = found["bytes"] / 1e6
            return {"mb_per_s": mebi / found["seconds"]}, mebi, generator
        figures = {"rate": found["count"] / found["seconds"], "p50_us": found["p50_us"], "p99_us": found["p99_us"]}
        return figures, found["count"], generator

    return lambda peer, around: _cell(peer, around, lambda: load(peer, around.seconds))


SOCKETS = 1000


def idle(peer, around) -> tuple[dict, Cost]:
    """Memory for each WebSocket that is open and says nothing, of all processes together.

    A peer of its own is started for it: one that was under load holds free memory already."""
    meter = Meter([], around.bench)
    if not peer.processes:
        return {}, meter.read(0.0)
    fresh = peers.start(peer.name, around.target, around.folder)
    try:
        figures = {"kib_per_socket": _per_socket(fresh)}
    finally:
        fresh.end()
    return figures, meter.read(0.0)


def _per_socket(peer) -> float:
    words = [LOAD, "drive", "idle", peer.http, "--streams", str(SOCKETS)]
    before = rss(peer.pids())
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = holder.stdout.readline()
        if not line:
            raise Failed(f"idle sockets through {peer.name}: {holder.stderr.read()[-300:]}")
        opened = json.loads(line)["open"]
        time.sleep(1)
        grown = rss(peer.pids()) - before
    finally:
        holder.stdin.close()
        holder.wait(20)
        holder.stdout.close()
        holder.stderr.close()
    return max(0.0, grown) * 1024 / opened


def start(peer, around) -> tuple[dict, Cost]:
    """Starts another one of the same: time to the first answer, memory then, size of the program."""
    meter = Meter([], around.bench)
    if not peer.processes:
        return {}, meter.read(0.0)
    fresh = peers.start(peer.name, around.target, around.folder)
    try:
        time.sleep(0.3)
        figures = {"start_ms": fresh.started * 1e3, "rss_mib": rss(fresh.pids())}
        if fresh.binary:
            figures["binary_mib"] = fresh.binary.stat().st_size / (1 << 20)
    finally:
        fresh.end()
    # Only of a process that has ended is it known that it was one of ours.
    return figures, meter.read(0.0)


ALL = [
    Workload("get-1", "1 KiB GET, one connection", "rate", get(1)),
    Workload("get-64", "1 KiB GET, 64 connections", "rate", get(64)),
    Workload("get-256", "1 KiB GET, 256 connections", "rate", get(256)),
    Workload("new", "1 KiB GET, a new connection each, 64 at once", "rate", driven("new", 64)),
    Workload("down-1", "download, one stream", "mb_per_s", driven("down", 1)),
    Workload("down-8", "download, 8 streams", "mb_per_s", driven("down", 8)),
    Workload("up-1", "upload, one stream", "mb_per_s", driven("up", 1)),
    Workload("up-8", "upload, 8 streams", "mb_per_s", driven("up", 8)),
    Workload("echo-64", "WebSocket echo, 64 sockets", "rate", driven("echo", 64)),
    Workload("idle", f"{SOCKETS} idle WebSockets", "kib_per_socket", idle, False),
    Workload("unary-1", "gRPC unary, 64 at once on one connection", "rate", driven("unary", 64, 1), True, True),
    Workload("unary-8", "gRPC unary, 64 at once on 8 connections", "rate", driven("unary", 64, 8), True, True),
    Workload("stream-64", "gRPC streams to and fro, 64 calls", "rate", driven("stream", 64), True, True),
    Workload("start", "start to first answer; memory and program", "start_ms", start, False),
]


def isolation(names: list[str], folder, rounds: int, seconds: float, say: Callable) -> dict:
    """Small requests beside downloads through all of `names`, in turn; what the program told."""
    target, running = free_port(), []
    words = [STRAIT, "bench", "isolation", "--json", "--runs", rounds, "--seconds", max(1, round(seconds))]
    words += ["--backend", f"127.0.0.1:{target}"]
    try:
        for name in names:
            if name == "direct":
                words.append("--direct")
            elif name != "strait":
                peer = peers.start(name, target, folder, ready=False)
                running.append(peer)
                peers.wait_open(int(peer.http.rsplit(":", 1)[1]), peer.processes)
                pids = ",".join(map(str, peer.pids()))
                words += ["--beside", f"{name}={peer.http},{pids}"]
        bench = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            for line in bench.stderr:
                say(f"isolation: {line.rstrip()}")
            printed = bench.stdout.read()
            if bench.wait(30) != 0:
                raise Failed(f"strait bench isolation: {printed[-500:]} (what went wrong is said above)")
            return json.loads(printed)
        finally:
            if bench.poll() is None:
                bench.terminate()
                bench.wait()
            bench.stdout.close()
            bench.stderr.close()
    finally:
        for peer in running:
            peer.end()
