"""A real etcd as the gRPC backend, driven by etcdctl."""

import asyncio
import re
import shutil
import signal

from case import case
from process import OUT, Process, free_port, run, until, up
from strait import Service

KEEP: dict[str, int] = {}


async def etcd() -> int:
    """The client port of one etcd, started with the first case that wants it."""
    if "port" not in KEEP:
        port, peer, home = free_port(), free_port(), OUT / "etcd"
        shutil.rmtree(home, ignore_errors=True)
        process = await Process.start(
            "etcd", "etcd", "--name", "one", "--data-dir", home,
            "--listen-client-urls", f"http://127.0.0.1:{port}", "--advertise-client-urls", f"http://127.0.0.1:{port}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", f"one=http://127.0.0.1:{peer}",
            env={"ETCD_UNSUPPORTED_ARCH": "arm64"},
        )
        await up(process, port)
        await until("etcd is healthy", lambda: _healthy(port), 15, 0.2)
        KEEP["port"] = port
    return KEEP["port"]


async def _healthy(port: int) -> bool:
    return (await run("etcdctl", "--endpoints", f"http://127.0.0.1:{port}", "endpoint", "health", env=V3)).code == 0


V3 = {"ETCDCTL_API": "3"}


class Ctl:
    """etcdctl at one address."""

    def __init__(self, address: str):
        self.command = ["etcdctl", "--endpoints", f"http://{address}", "--dial-timeout", "5s", "--command-timeout", "10s"]

    async def __call__(self, *words, seconds: float = 15) -> str:
        return (await run(*self.command, *words, seconds=seconds, env=V3)).ok().text

    async def start(self, name: str, *words) -> Process:
        return await Process.start(name, *self.command, *words, env=V3, split=True)


async def ctl(t) -> Ctl:
    """etcdctl in the mode of the case; through a tunnel that carries nothing else."""
    port = await etcd()
    if t.mode == "direct":
        return Ctl(f"127.0.0.1:{port}")
    world = await t.alone(f"etcd-{t.mode}", services=[Service("grpc", port)])
    return Ctl(world.grpc)


def printed(name: str) -> list[str]:
    """What a started command has printed so far."""
    return (OUT / f"{name}.out").read_text().splitlines()


@case("etcd: put, get, ranges, transactions")
async def put_get(t):
    etcdctl = await ctl(t)
    prefix = f"/{t.mode}/kv"
    assert await etcdctl("put", f"{prefix}/a", "first value") == "OK\n"
    await etcdctl("put", f"{prefix}/b", "ü" * 1000)
    assert await etcdctl("get", f"{prefix}/a") == f"{prefix}/a\nfirst value\n"
    assert (await etcdctl("get", "--prefix", prefix, "--print-value-only")).count("\n") == 2
    big = "x" * 900_000
    ran = await run(*etcdctl.command, "put", f"{prefix}/big", stdin=big.encode(), env=V3)
    ran.ok()
    assert (await etcdctl("get", f"{prefix}/big", "--print-value-only")).strip() == big
    assert (await etcdctl("del", "--prefix", prefix)).strip() == "3"
    assert "is healthy" in (await run(*etcdctl.command, "endpoint", "health", env=V3)).ok().errors + await etcdctl(
        "endpoint", "health")


@case("etcd: a watch sees later puts, in order")
async def watch(t):
    etcdctl = await ctl(t)
    key, name = f"/{t.mode}/watched", f"etcd-watch-{t.mode}"
    watcher = await etcdctl.start(name, "watch", key)
    # A watch says nothing when it starts: put until the first event comes.
    async def first():
        await etcdctl("put", key, "start")
        return "start" in printed(name)

    await until("the watch has begun", first, 10, 0.1)
    for number in range(20):
        await etcdctl("put", key, f"value {number}")
    await until("the watch sees the last put", lambda: "value 19" in printed(name), 10)
    values = [line for line in printed(name) if line.startswith("value ")]
    assert values == [f"value {n}" for n in range(20)], values
    watcher.signal(signal.SIGINT)
    await watcher.ended(5)


@case("etcd: a lease is kept alive, then runs out")
async def lease(t):
    etcdctl = await ctl(t)
    granted = await etcdctl("lease", "grant", "2")
    number = re.search(r"lease ([0-9a-f]+) granted", granted).group(1)
    key, name = f"/{t.mode}/leased", f"etcd-lease-{t.mode}"
    await etcdctl("put", f"--lease={number}", key, "mine")
    keeper = await etcdctl.start(name, "lease", "keep-alive", number)
    # Twice its life, and still there.
    await asyncio.sleep(4.5)
    assert "mine" in await etcdctl("get", key), printed(name)
    assert len([line for line in printed(name) if "keepalived" in line]) >= 2, printed(name)
    keeper.signal(signal.SIGKILL)
    await keeper.ended(5)

    async def gone():
        return await etcdctl("get", key) == ""

    await until("the lease runs out", gone, 10, 0.3)


@case("etcd: a lock has one holder at a time")
async def lock(t):
    etcdctl = await ctl(t)
    name = f"/{t.mode}/lock"
    first = await etcdctl.start(f"etcd-lock1-{t.mode}", "lock", name)
    await until("the first holds the lock", lambda: printed(f"etcd-lock1-{t.mode}"), 10)
    second = await etcdctl.start(f"etcd-lock2-{t.mode}", "lock", name)
    await asyncio.sleep(0.7)
    assert not printed(f"etcd-lock2-{t.mode}"), "two hold the lock"
    first.signal(signal.SIGINT)
    await first.ended(5)
    await until("the second holds the lock", lambda: printed(f"etcd-lock2-{t.mode}"), 10)
    second.signal(signal.SIGINT)
    await second.ended(5)
