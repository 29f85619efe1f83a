"""Drives the real program with clients that we did not write.

usage: main.py [--mode direct|server-entry|client-entry|once]... [-k WORDS] [--list]
"""

import argparse
import asyncio
import importlib
import pathlib
import resource
import shutil
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from case import CASES, Skip, Test  # noqa: E402
from process import ALIVE, OUT, stop_all  # noqa: E402
from strait import BIN, LOAD  # noqa: E402
from world import Backends, World  # noqa: E402

# In this order: what everything else rests on first.
MODULES = (
    "http_basics", "http_edges", "expect", "http_rules", "smuggling", "websocket", "websocket_h2", "grpc_calls", "peer", "peer_life",
    "interop", "browser", "etcd", "scenario", "load", "tunnels", "memory", "budget", "isolation", "cancel", "floods", "observe", "security",
    "proxies", "visitors",
    "life", "reload", "faults", "startup", "demo",
)
MODES = ("direct", "server-entry", "client-entry", "once")
# All that holds with one tunnel holds with several, too.
TUNNELS = {"direct": 1, "server-entry": 1, "client-entry": 2}


async def attempt(case, test: Test) -> str:
    """Runs one case; the text of its failure, or nothing."""
    try:
        await asyncio.wait_for(case.function(test, **case.arguments), case.seconds)
    except Skip as skip:
        return f"skipped: {skip}"
    except TimeoutError:
        return f"not done after {case.seconds:g} s"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if str(HERE) in f.filename][-1:]
        place = "".join(f"  at {pathlib.Path(f.filename).name}:{f.lineno}: {f.line}\n" for f in ours)
        return f"{type(error).__name__}: {error}\n{place}"
    return ""


class Suite:
    """Counts and prints."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.broken: list[str] = []

    async def one(self, case, mode: str, world, backends) -> None:
        test = Test(mode, world, backends)
        began = time.monotonic()
        failure = await attempt(case, test)
        took = time.monotonic() - began
        notes = f"  ({'; '.join(test.notes)})" if test.notes else ""
        label = f"{mode:12} {case.name}"
        if failure.startswith("skipped:"):
            self.skipped += 1
            print(f"skip  {label}  {failure}", flush=True)
        elif not failure:
            self.passed += 1
            print(f"ok    {label}  {took:.2f} s{notes}", flush=True)
        else:
            self.failed += 1
            self.broken.append(label)
            print(f"FAIL  {label}  {took:.2f} s{notes}\n{failure.rstrip()}", flush=True)
            for w in [world, *test.own]:
                if w and w.tail():
                    print(w.tail(), flush=True)
        for w in test.own:
            await w.stop()

    def close(self) -> int:
        for label in self.broken:
            print(f"failed: {label}")
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{skipped}", flush=True)
        return 1 if self.failed or not self.passed else 0


async def suite(modes, words) -> int:
    """Runs the chosen cases, one after another."""
    result = Suite()
    backends = await Backends.start()
    for mode in modes:
        chosen = [c for c in CASES if mode in c.modes and all(w in f"{mode} {c.name}" for w in words)]
        if not chosen:
            continue
        world = None
        if mode != "once":
            try:
                world = await World.start(mode, backends, tunnels=TUNNELS[mode])
            except AssertionError as error:
                result.failed += len(chosen)
                result.broken.append(f"{mode}: {len(chosen)} cases, the tunnel did not come up")
                print(f"FAIL  {mode}: {error}", flush=True)
                await stop_pairs()
                continue
        for case in chosen:
            await result.one(case, mode, world, backends)
            if world and world.pair:
                for side, node in world.pair.node.items():
                    if not node.alive:
                        print(f"FAIL  {mode}: the {side} ended by itself\n{node.tail(40)}")
                        result.failed += 1
                        await world.pair.down()
                        world = await World.start(mode, backends, tunnels=TUNNELS[mode])
                        break
        if world:
            await world.stop()
    return result.close()


async def stop_pairs() -> None:
    """Ends half-started pairs, not the backends."""
    for process in ALIVE.copy():
        if process.name.endswith(("-server", "-client")):
            await process.stop()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("-k", nargs="*", default=[], help="only cases whose name holds all these words")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    for module in MODULES:
        if (HERE / "cases" / f"{module}.py").exists():
            importlib.import_module(f"cases.{module}")
    if options.list:
        for case in CASES:
            print(f"{case.name}  [{', '.join(case.modes)}]")
        return 0
    modes = options.mode or ["server-entry", "client-entry", "once"]
    needed = [LOAD] if modes == ["direct"] else [LOAD, BIN]
    for program in needed:
        if not program.exists():
            print(f"{program} is missing: cargo build --release -p strait -p testkit, or set STRAIT_BIN / TESTKIT_LOAD")
            return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    # A thousand visitors need a thousand sockets, here and in what is started from here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return await suite(modes, options.k)
    finally:
        await stop_all()


# In the background of a script SIGINT is ignored, and under nohup SIGHUP is. What is started here would inherit that; a
# signal that is handled is its own again.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
sys.exit(asyncio.run(main()))
