"""A changed file and no restart: SIGHUP, and POST /reload at the admin address."""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import signal
import ssl
from dataclasses import dataclass, field

from case import ENTRIES, case
from cases.grpc_calls import Probe, pb
from cases.life import FAR, NEAR, in_flight, visit
from cases.load import load
from cases.websocket import at
from process import OUT, ROOT, certificate, run, until
from strait import BIN, Pair, Service


def services(*offered: Service) -> str:
    """The tables of a file that offer them."""
    text = ""
    for number, service in enumerate(offered):
        protocols = '["grpc"]' if service.kind == "grpc" else '["http", "websocket"]'
        text += f'[[services]]\nname = "{service.kind}-{number}"\nbackend = {service.port}\nprotocols = {protocols}\n'
        text += f'path = "{service.path}"\n' if service.path else ""
    return text


@dataclass
class Filed(Pair):
    """A pair whose two sides are told everything by their files."""

    # After what the tunnel and the entry need.
    rest: dict[str, str] = field(default_factory=lambda: {"server": "", "client": ""})
    # More keys of [server] or [client], and of the entry.
    end: dict[str, str] = field(default_factory=lambda: {"server": "tls = false\n", "client": ""})
    door: dict[str, str] = field(default_factory=lambda: {"server": "", "client": ""})

    def file(self, side: str) -> pathlib.Path:
        """The file of one side."""
        return OUT / f"{self.name}-{side}.toml"

    def text(self, side: str) -> str:
        """What its file says."""
        if side == "server":
            text = f'[server]\nlisten = "127.0.0.1:{self.tunnel}"\n{self.end[side]}'
            text += f'[[server.tokens]]\nname = "own"\ntoken = "{self.token}"\n'
        else:
            scheme = "http" if "tls = false" in self.end["server"] else "https"
            text = f'[client]\nserver = "{scheme}://127.0.0.1:{self.tunnel}"\ntoken = "{self.token}"\n{self.end[side]}'
        return text + f'[[entries]]\nlisten = "127.0.0.1:{self.entry[side]}"\n{self.door[side]}{self.rest[side]}'

    def write(self, side: str) -> None:
        """Puts another file in the place of the old one, as editors and deployments do."""
        beside = self.file(side).with_suffix(".new")
        beside.write_text(self.text(side))
        os.replace(beside, self.file(side))

    def command(self, side: str) -> list[str]:
        self.write(side)
        return self.as_it_is(side)

    def as_it_is(self, side: str) -> list[str]:
        """The command line, whatever the file is now."""
        return [str(BIN), side, "--config", str(self.file(side)), "--admin", f"127.0.0.1:{self.admin[side]}", "--log", "json"]

    def said(self, side: str) -> list[dict]:
        """The log of one side."""
        lines = self.node[side].log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def outcomes(self, side: str) -> list[str]:
        """What came of each reload of one side."""
        messages = [line["message"] for line in self.said(side)]
        return [text for text in messages if text.startswith(("reloaded;", "not reloaded,"))]

    async def post(self, side: str, *flags) -> tuple[int, str]:
        """Reloads by the admin address: status and text."""
        ran = await run("curl", "-sS", "-X", "POST", "-w", "\n%{http_code}", *flags, f"http://127.0.0.1:{self.admin[side]}/reload")
        text, _, status = ran.ok().text.rpartition("\n")
        return int(status), text.rstrip("\n")

    async def reload(self, side: str, by_signal: bool = False) -> str:
        """Reloads; what the log says of it."""
        before = len(self.outcomes(side))
        if by_signal:
            self.node[side].signal(signal.SIGHUP)
        else:
            await self.post(side)
        await until("the reload is told", lambda: len(self.outcomes(side)) > before, 10, 0.005)
        return self.outcomes(side)[before]

    async def stayed(self) -> None:
        """The tunnel of the beginning is still there."""
        for side in ("server", "client"):
            assert (await self.status(side))["totals"]["sessions"] == 1, f"the {side} has had another tunnel"


async def filed(t, name: str, **options) -> Filed:
    """A pair with files, ended with the case."""
    from case import _Closing

    pair = Filed(name, **options)
    t.own.append(_Closing(pair))
    return pair


@case("reload: 20 times on both sides under load: every request is answered, the tunnel stays", ENTRIES, seconds=90)
async def under_load(t):
    pair = await filed(t, f"reload-load-{t.mode}")
    near, far = NEAR[t.mode], FAR[t.mode]
    ports = [(await t.fast(f"reload-fast-{t.mode}-{number}"))[1] for number in range(2)]

    def write(number: int) -> None:
        # Another backend each time, and other limits every other time: then all are made anew.
        limits = f'[limits]\nmax_uri = "{8 + number // 2 % 2}KiB"\n'
        pair.rest[far] = services(Service("http", ports[number % 2], path="/fast")) + limits
        pair.rest[near] = limits + f'[log]\nlevel = "{("info", "info,strait_mux=debug")[number % 2]}"\n'

    write(0)
    await pair.up()
    address = f"127.0.0.1:{pair.entry[near]}"
    running = [asyncio.ensure_future(load(address, 15_000, 20, *flags)) for flags in ((), ("--h2",))]
    reloads = 0
    while reloads < 20 or not all(task.done() for task in running):
        reloads += 1
        write(reloads)
        for side in (far, near):
            pair.write(side)
            said = await pair.reload(side, by_signal=reloads % 4 > 1)
            assert said.startswith("reloaded; changed: "), said
        await asyncio.sleep(0.05)
    for found in [await task for task in running]:
        assert found["right"] == 15_000 and not found["mixed"] and not found["lost"], str(found)[:1500]
    await pair.stayed()
    await pair.clean()
    t.note(f"{reloads} reloads")


@case("reload: a download, a WebSocket and a gRPC stream go on where they began", ENTRIES, seconds=60)
async def under_way(t):
    pair = await filed(t, f"reload-streams-{t.mode}")
    near, far = NEAR[t.mode], FAR[t.mode]
    offered = t.backends.services()
    pair.rest[far] = services(*offered)
    await pair.up()
    address = f"127.0.0.1:{pair.entry[near]}"
    whole = asyncio.create_task(run("curl", "-sS", "--limit-rate", "60M", "-o", "/dev/null", "-w", "%{size_download}",
                                    "-r", "0-199999999", f"http://{address}/files/hole.bin"))
    async with at(address, "echo") as ws, Probe(address) as probe:
        call = probe.Chat()

        async def echoes(word: str) -> None:
            await ws.send(word)
            assert await asyncio.wait_for(ws.recv(), 5) == word
            await call.write(pb.Question(payload=word.encode()))
            reply = await asyncio.wait_for(call.read(), 5)
            assert reply.payload == word.encode(), reply

        await echoes("before")
        # The download, too, has begun.
        await in_flight(pair, near, 3)
        # All of them are gone for whoever comes now.
        pair.rest[far] = services(Service("http", t.backends.http, path="/hello"))
        pair.write(far)
        await pair.reload(far)

        async def no_route() -> bool:
            return (await visit(pair.entry[near], "/files/digits.txt"))[0] == 404

        await until("new visitors find no route", no_route)
        assert (await visit(pair.entry[near], "/hello"))[0] == 200
        await echoes("after")
        pair.rest[far] = services(*offered)
        pair.write(far)
        await pair.reload(far)
        await echoes("and after that")
        await call.done_writing()
    ran = (await whole).ok()
    assert ran.text == "200000000", ran.text
    await pair.stayed()
    await pair.clean()


@case("reload: after each mistake the old file serves, and one line says what the start would say", ("once",), seconds=90)
async def mistakes(t):
    pair = await filed(t, "reload-mistakes")
    pair.rest["client"] = services(Service("http", t.backends.http))
    await pair.up()
    good = {side: pair.text(side) for side in ("server", "client")}
    page = (ROOT / "crates/strait-node/tests/mistakes.golden").read_text()
    bad = ["".join(f"{line}\n" for line in block.splitlines() if not line.startswith("=> ")).encode() for block in page.split("\n\n")]
    bad += [b"", b"[server\n", b"[server]\nx = \xff\n", b"# nothing\n", good["server"].encode() + b"[more]\n", None, "directory"]
    for number, text in enumerate(bad):
        side = "client" if text and text[:8] == b"[client]" else "server"
        file = pair.file(side)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.unlink()
            if text:
                file.mkdir()
        start = await run(*pair.as_it_is(side), env=pair.environment, seconds=10)
        assert start.code == 78, f"exit code {start.code}: {text}"
        expected = start.errors.rstrip("\n")

        def errors(side=side) -> list[str]:
            return [line["message"] for line in pair.said(side) if line["level"] == "ERROR"]

        before = len(errors())
        if number % 2:
            status, told = await pair.post(side)
            assert (status, told) == (422, expected), f"{status} {told}\nat the start: {expected}"
        else:
            pair.node[side].signal(signal.SIGHUP)
        await until("the mistake is told", lambda: len(errors()) > before, 10, 0.005)
        assert (await visit(pair.entry["server"], "/hello"))[0] == 200, text
        assert errors()[before:] == [f"not reloaded, all stays as it was: {expected}"], f"{errors()[before:]}\nat the start: {expected}"
        if file.is_dir():
            file.rmdir()
        file.write_text(good[side])
    refused = 0
    for side in good:
        assert await pair.post(side) == (200, '{"changed":[],"waiting":[]}')
        counted = await pair.metrics(side)
        assert counted["strait_reloads_total"] == 1
        refused += counted["strait_reloads_refused_total"]
    assert refused == len(bad), f"{refused} of {len(bad)} are counted"
    await pair.stayed()
    t.note(f"{len(bad)} mistakes")


async def shown(port: int) -> str:
    """The certificate that a port shows."""
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


@case("reload: certificates that were replaced under their names are shown from then on", ("once",), seconds=60)
async def certificates(t):
    folder = OUT / "reload-certificates"
    folder.mkdir(exist_ok=True)
    made = [await certificate(f"reload-{number}.test") for number in range(3)]

    def take(number: int, key: int = -1) -> None:
        for name, path in (("cert.pem", made[number][0]), ("key.pem", made[number if key < 0 else key][1])):
            shutil.copy(path, folder / f"{name}.new")
            os.replace(folder / f"{name}.new", folder / name)

    take(0)
    files = f'cert = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n'
    pair = await filed(t, "reload-certificates")
    pair.end = {"server": files, "client": f'ca = "{folder}/cert.pem"\n'}
    pair.door["server"] = files
    secure = f'[[services]]\nname = "secure"\nhosts = ["secure.test"]\nbackend = "https://localhost:1"\nca = "{folder}/cert.pem"\n'
    pair.rest["client"] = services(Service("http", t.backends.http)) + secure
    await pair.up()
    ports = (pair.entry["server"], pair.tunnel)
    assert [await shown(port) for port in ports] == [made[0][0].read_text()] * 2
    take(1)
    assert await pair.reload("server") == "reloaded; changed: entries.web.cert, server.cert"
    assert [await shown(port) for port in ports] == [made[1][0].read_text()] * 2
    take(2, key=0)
    assert "does not belong to certificate" in await pair.reload("server")
    assert [await shown(port) for port in ports] == [made[1][0].read_text()] * 2
    await pair.stayed()
    # A client that has read its authorities again comes back to the new certificate.
    take(1)
    assert await pair.reload("client") == "reloaded; changed: services.secure.ca, client.ca"
    assert await pair.reload("client") == "reloaded; nothing changed"
    await pair.node["server"].stop()
    await pair.start("server")
    await pair.joined()
    url = f"https://reload-1.test:{ports[0]}/hello"
    flags = ["--cacert", made[1][0], "--resolve", f"reload-1.test:{ports[0]}:127.0.0.1"]
    assert (await run("curl", "-sS", *flags, url)).ok().text == "hello\n"


@case("reload: what waits for a restart is named, the level of the log changes at once", ("once",), seconds=40)
async def waits(t):
    pair = await filed(t, "reload-waits")
    pair.rest["client"] = services(Service("http", t.backends.http))
    await pair.up()
    was = pair.tunnel, pair.entry["server"]
    pair.tunnel, pair.entry["server"] = 1, 2
    pair.rest["server"] = '[log]\nlevel = "debug"\nformat = "text"\n[limits]\nthreads = 7\n'
    pair.write("server")
    before = len(pair.said("server"))
    status, text = await pair.post("server")
    waiting = ["server.listen", "entries.web.listen", "limits.threads"]
    assert (status, json.loads(text)) == (200, {"changed": ["log.level"], "waiting": waiting}), text

    def warned() -> list[str]:
        return [line["message"] for line in pair.said("server")[before:] if line["level"] == "WARN"]

    await until("what waits is told", warned)
    assert warned() == ["waits for a restart: " + ", ".join(waiting)], warned()
    pair.tunnel, pair.entry["server"] = was
    assert (await visit(was[1], "/hello"))[0] == 200
    with contextlib.suppress(ssl.SSLError, OSError):
        # Somebody who is at the wrong door: told at this level only.
        await shown(was[0])
    await until("it logs at the new level", lambda: any(line["level"] == "DEBUG" for line in pair.said("server")))
    # A page in a browser of this machine changes nothing.
    assert (await pair.post("server", "-H", "Origin: http://evil.test"))[0] == 403
    assert await pair.get("server", "/reload") is None
    await pair.stayed()


@case("reload: a node without a file ends at SIGHUP, as with its terminal; the admin address reads its flags' files again", ("once",), seconds=40)
async def no_file(t):
    cert, key = await certificate("reload-flags.test")
    pair = await t.pair("reload-flags", behind_client=[Service("http", t.backends.http)],
                        server_flags=["--entry-cert", str(cert), "--entry-key", str(key)])
    await pair.up()
    other, its_key = await certificate("reload-flags-2.test")
    shutil.copy(other, cert)
    shutil.copy(its_key, key)
    assert await Filed.post(pair, "server") == (200, '{"changed":["entries.web.cert"],"waiting":[]}')
    assert await shown(pair.entry["server"]) == other.read_text()
    pair.node["client"].signal(signal.SIGHUP)
    assert await pair.node["client"].ended(5) == -signal.SIGHUP


@case("reload: a hundred times 1,000 services: nothing of the old ones stays", ("once",), seconds=90)
async def memory(t):
    pair = await filed(t, "reload-memory")

    def write(number: int) -> None:
        mine = (f'[[services]]\nname = "s{number}-{i}"\nbackend = {t.backends.http}\npath = "/p{i}"\n' for i in range(1000))
        pair.rest["client"] = "".join(mine) + f'[limits]\nmax_uri = "{8 + number % 2}KiB"\n'
        pair.write("client")

    write(0)
    await pair.up()
    sizes = []
    for number in range(1, 101):
        write(number)
        status, text = await pair.post("client")
        assert status == 200 and len(json.loads(text)["changed"]) == 2001, text[:300]

        async def offered(number=number) -> bool:
            routes = (await pair.status("server"))["routes"]
            return len(routes) == 1000 and all(route["service"].startswith(f"s{number}-") for route in routes)

        await until("the server knows the new ones and no others", offered)
        sizes.append([node.rss() for node in pair.node.values()])
    warm, end = [max(column) for column in zip(*sizes[20:50])], [max(column) for column in zip(*sizes[-10:])]
    t.note("; ".join(f"{w >> 20} MiB, then {e >> 20}" for w, e in zip(warm, end)))
    # A configuration that stayed would be some MiB, and fifty of them would.
    assert all(e <= w * 1.25 + (16 << 20) for w, e in zip(warm, end)), f"{warm} grew to {end}"
    assert (await visit(pair.entry["server"], "/p7"))[0] in (200, 404)
    await pair.stayed()
