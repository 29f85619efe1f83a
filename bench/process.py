"""Processes that the bench starts, and ends: each by its own process id."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from measure import family

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from ports import free_port  # noqa: E402, F401

TOOLS = ROOT / "bench" / ".tools"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
STRAIT = os.environ.get("STRAIT_BIN") or str(TARGET / "strait")
LOAD = os.environ.get("TESTKIT_LOAD") or str(TARGET / "testkit-load")

_running: list["Process"] = []


class Failed(Exception):
    """Something that the bench needs did not work; the message says what to do."""


class Process:
    """One process of a peer; it ends with the bench at the latest."""

    def __init__(self, words: list, folder: pathlib.Path, env: dict | None = None):
        self.words = [str(word) for word in words]
        self.log = tempfile.NamedTemporaryFile(
            dir=folder, prefix=pathlib.Path(self.words[0]).name + "-", suffix=".log", delete=False
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STRAIT_")}
        self.child = subprocess.Popen(
            self.words, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, env=environment | (env or {}), cwd=folder
        )
        _running.append(self)

    def pids(self) -> list[int]:
        """Its process id and those of what it has started."""
        return family(self.child.pid)

    def said(self) -> str:
        """The last lines of what it said."""
        return pathlib.Path(self.log.name).read_text(errors="replace")[-600:]

    def check(self) -> None:
        """Fails when it has ended by itself."""
        if self.child.poll() is not None:
            raise Failed(f"{' '.join(self.words)} ended ({self.child.returncode}): {self.said()}")

    def end(self) -> None:
        """Ends it, at once when asking does not help."""
        if self in _running:
            _running.remove(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(3)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child.stdin.close()
        self.log.close()


def end_all() -> None:
    """Ends all that was started, last first."""
    while _running:
        _running[-1].end()


def on_signals() -> None:
    """An interrupted bench ends what it started too."""

    def interrupted(number, _frame):
        # A second one must not stop the ending of what was started.
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)


def run(words: list, timeout: float) -> tuple[str, float]:
    """Runs a load generator to its end: what it printed, and its CPU seconds."""
    words = [str(word) for word in words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{' '.join(words)}: no end after {timeout:.0f} s") from late
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise Failed(f"{' '.join(words)}: {done.stderr[-400:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def drive(words: list, timeout: float) -> tuple[dict, float]:
    """Runs testkit-load: its line of JSON, and its CPU seconds."""
    printed, seconds = run([LOAD, "drive", *words], timeout)
    try:
        found = json.loads(printed)
    except ValueError as wrong:
        raise Failed(f"testkit-load {words} printed no JSON: {printed[:200]!r}") from wrong
    if found["failed"] > found["count"]:
        raise Failed(f"{words[0]}: {found['failed']} failed, first with: {found['error']}")
    return found, seconds


def wait_for(address: str, ask: bytes, processes: list[Process], patience: float = 15) -> float:
    """Waits until `ask` at `address` is answered with 200; how many seconds that took."""
    began = time.monotonic()
    host, port = address.rsplit(":", 1)
    while time.monotonic() - began < patience:
        for process in processes:
            process.check()
        try:
            with socket.create_connection((host, int(port)), 1) as asked:
                asked.sendall(ask)
                asked.settimeout(1)
                if b" 200 " in asked.recv(64):
                    return time.monotonic() - began
        except OSError:
            pass
        time.sleep(0.001)
    said = "\n".join(process.said() for process in processes)
    raise Failed(f"nothing gets through {address} in {patience} s: {said}")


# What each package of Debian brings: the command that proves it is there.
DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}
# Programs built by cargo, with the version that is measured.
CRATES = {"rathole": ("rathole", "0.5.0"), "bore": ("bore-cli", "0.6.0")}


def install_debian(packages: list[str]) -> None:
    """Installs packages of Debian."""
    print(f"installing from Debian: {' '.join(packages)}", file=sys.stderr)
    # A package with a service would start it: not here.
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = ["apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=300"]
    try:
        subprocess.run([*quiet, "update"], check=True)
        subprocess.run([*quiet, "install", "--no-install-recommends", *packages], check=True, stdout=subprocess.DEVNULL)
    finally:
        if made:
            policy.unlink()


def install(commands: set[str]) -> None:
    """Installs what of `commands` is missing, and builds what is to be measured."""
    missing = [package for command, package in DEBIAN.items() if command in commands and not shutil.which(command)]
    if missing:
        install_debian(missing)
    for command, (crate, version) in CRATES.items():
        if command in commands and not (TOOLS / "bin" / command).exists():
            print(f"building {crate} {version}, once; this takes minutes", file=sys.stderr)
            where = {"CARGO_TARGET_DIR": str(TOOLS / "target")}
            words = ["cargo", "install", "--quiet", "--root", str(TOOLS), crate, "--version", version]
            subprocess.run(words, check=True, env=os.environ | where)
    if "STRAIT_BIN" not in os.environ or "TESTKIT_LOAD" not in os.environ:
        words = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "strait", "-p", "testkit"]
        subprocess.run(words, check=True, cwd=ROOT)
