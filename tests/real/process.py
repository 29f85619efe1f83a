"""Processes that the tests start: own ports, own logs, ended by their pid."""

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = HERE / "out"
sys.path.append(str(HERE.parent))

from ports import free_port  # noqa: E402


async def until(what: str, check, seconds: float = 10.0, pause: float = 0.02):
    """Waits until `check()` is true; its value is returned. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        await asyncio.sleep(pause)


async def listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class Process:
    """A running program whose output goes to a file in `out/`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: pathlib.Path):
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(cls, name: str, *command, env: dict | None = None, split: bool = False):
        """Starts `command`. With `split`, standard output goes to NAME.out, apart from
        the log, so that a test can read it line by line."""
        OUT.mkdir(exist_ok=True)
        log = OUT / f"{name}.log"
        full = {**os.environ, **(env or {})}
        with open(log, "ab") as err, open(OUT / f"{name}.out", "ab") as out:
            err.write(f"$ {' '.join(map(str, command))}\n".encode())
            err.flush()
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out if split else err,
                stderr=err,
                env=full,
                start_new_session=True,
            )
        ALIVE.append(started := cls(name, process, log))
        return started

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def ended(self, seconds: float) -> int:
        """The exit code; fails when the process runs on for longer than `seconds`."""
        try:
            return await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            raise AssertionError(f"{self.name} still runs after {seconds:g} s") from None

    async def stop(self) -> None:
        """Ends the process and everything it started: asks first, insists after 5 s."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            # Its own session is its process group: helpers of a browser go with it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 5)
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self in ALIVE:
            ALIVE.remove(self)

    def rss(self) -> int:
        """Resident memory in bytes."""
        with open(f"/proc/{self.pid}/smaps_rollup") as lines:
            for line in lines:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
        raise RuntimeError("no Rss line")

    def tail(self, lines: int = 25) -> str:
        """The last lines of its log."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])


ALIVE: list[Process] = []


async def stop_all() -> None:
    """Ends whatever is still running."""
    for process in reversed(ALIVE.copy()):
        await process.stop()


async def backend(module: str, name: str, *arguments) -> tuple[Process, int]:
    """Starts a Python backend of ours on a free port and waits until it accepts."""
    port = free_port()
    process = await Process.start(
        name, sys.executable, HERE / "backends" / f"{module}.py", port, *arguments
    )
    await up(process, port)
    return process, port


async def up(process: Process, port: int, seconds: float = 15) -> None:
    """Waits until a process accepts on its port, or says why it does not."""

    async def check():
        if not process.alive:
            raise AssertionError(f"{process.name} ended at its start:\n{process.tail()}")
        return await listening(port)

    await until(f"{process.name} accepts on port {port}", check, seconds)


class Ran:
    """A command that has ended."""

    def __init__(self, command, code: int, out: bytes, err: bytes, seconds: float):
        self.command, self.code, self.out, self.err = command, code, out, err
        self.seconds = seconds

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        return self.err.decode("utf-8", "replace")

    def ok(self) -> "Ran":
        """Fails unless the command succeeded."""
        assert self.code == 0, (
            f"exit code {self.code}: {' '.join(self.command)}\n{self.text[-1500:]}\n{self.errors[-1500:]}"
        )
        return self


async def run(*command, seconds: float = 30, stdin: bytes | None = None, env=None) -> Ran:
    """Runs a command to its end, at most `seconds`."""
    command = [str(word) for word in command]
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), seconds)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(
            f"still running after {seconds:g} s: {' '.join(command)}\n{out[-800:]!r}\n{err[-800:]!r}"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return Ran(command, process.returncode, out, err, time.monotonic() - began)


async def certificate(name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for a name and 127.0.0.1, and its key (PEM)."""
    folder = OUT / f"certificate-{name}"
    folder.mkdir(exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    (await run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
               "-keyout", key, "-out", cert, "-subj", f"/CN={name}",
               "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")).ok()
    return cert, key
