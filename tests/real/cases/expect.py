"""`Expect: 100-continue` from one end to the other: the service says whether it wants a body, and when."""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import struct
import time

import frames
from case import ENTRIES, case
from cases.http_rules import answering, visiting
from curl import curl

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY = os.urandom(3_000_000)
# By HTTP/2 nobody can be told that his body is wanted, and curl sends it after its time.
WAITS = {
    http: ["-H", "Expect: 100-continue", "--expect100-timeout", seconds, "-X", "POST"]
    for http, seconds in (("1.1", "20"), ("2", "0.1"))
}
LENGTH, CHUNKED = ["--data-binary", "@-"], ["-T", "-"]


class Service:
    """A service that reads a head, is silent for a while, says `says`, and takes the body if that was not its
    answer."""

    def __init__(self, says: bytes = CONTINUE, after: float = 0.0):
        self.says, self.after = says, after
        # Of each request: its head, how many bytes of body came before a word was said and in all,
        # how long its first byte took, and whether the connection ended while it was waited for.
        self.seen: list[dict] = []

    async def __call__(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                seen = {"head": head, "early": 0, "body": 0, "ended": None}
                self.seen.append(seen)
                began = time.monotonic()
                first = b""
                with contextlib.suppress(TimeoutError):
                    first = await asyncio.wait_for(reader.read(65_536), self.after)
                    seen["early"], seen["ended"] = len(first), not first and time.monotonic() - began
                seen["first"] = time.monotonic() - began
                writer.write(self.says)
                if self.says and self.says != CONTINUE:
                    seen["body"] = len(first + await reader.read(-1))
                    break
                whole = await body(reader, head, first)
                seen["body"] = len(whole)
                text = json.dumps({"length": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        writer.close()


async def body(reader, head: bytes, first: bytes) -> bytes:
    """The body of a request, of which `first` was read."""
    length = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    if length:
        return first + await reader.readexactly(int(length[0]) - len(first))
    assert not first, "a chunked body begins with a chunk"
    whole = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        whole += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return whole


def is_whole(got, sent: bytes = BODY) -> None:
    """The service has had this body."""
    said = json.loads(got.is_ok().body)
    assert said == {"length": len(sent), "sha256": hashlib.sha256(sent).hexdigest()}, said


@case("curl h1: the upload begins when the service asks for it, with a length", ENTRIES, http="1.1", length=True)
@case("curl h1: the upload begins when the service asks for it, chunked", ENTRIES, http="1.1", length=False)
@case("curl h2: the upload goes on when the service asks for it", ENTRIES, http="2", length=True)
async def asked(t, http, length):
    service = Service(after=0.3)
    async with answering(t, f"asked-{http}-{length}", service) as world:
        for _ in range(2):
            flags = [*WAITS[http], *(LENGTH if length else CHUNKED)]
            got = await curl(f"http://{world.http}/", *flags, http=http, stdin=BODY)
            is_whole(got)
            assert got.interim == (http == "1.1"), f"{got.interim} interim answers"
            assert 0.3 <= got.seconds < 10, f"{got.seconds} s"
        assert len(service.seen) == 2, service.seen
        for seen in service.seen:
            assert b"\r\nexpect: 100-continue\r\n" in seen["head"], seen
            assert (b"\r\ncontent-length: " in seen["head"]) == length, seen
            assert seen["early"] == 0, f"{seen['early']} bytes before they were asked for"
        await world.pair.clean()


@case("curl h1: an answer instead of 100 Continue, and nothing is uploaded", ENTRIES, http="1.1")
@case("curl h2: an answer instead of 100 Continue, and nothing is uploaded", ENTRIES, http="2")
async def refused(t, http):
    # curl 7.88 goes on by HTTP/2 after an answer that is no refusal.
    for status in (401, 413, 417) if http == "2" else (401, 413, 417, 200):
        # The service itself would go on with the connection.
        service = Service(b"HTTP/1.1 %d Said\r\nContent-Length: 2\r\n\r\nno" % status)
        async with answering(t, f"refused-{http}-{status}", service) as world:
            flags = [*WAITS[http], *CHUNKED, "-w", "%{stderr}%{size_upload}"]
            got = await curl(f"http://{world.http}/", *flags, http=http, stdin=BODY)
            assert (got.status, got.body, got.interim) == (status, b"no", 0), (got.status, got.body, got.interim)
            assert got.code == 0, got.ran.errors
            await world.pair.clean()
            assert [seen["body"] for seen in service.seen] == [0], service.seen
            if http == "1.1":
                assert got.ran.errors.strip() == "0", f"{got.ran.errors} bytes were uploaded"


@case("a service that does not know 100 Continue gets the body after continue_wait", ENTRIES, http="1.1")
@case("h2: a service that does not know 100 Continue gets the body after continue_wait", ENTRIES, http="2")
async def ignored(t, http):
    service = Service(says=b"", after=30)
    settings = '[timeouts]\ncontinue_wait = "500ms"\n'
    async with answering(t, f"ignored-{http}", service, settings=settings) as world:
        got = await curl(f"http://{world.http}/", *WAITS[http], *LENGTH, http=http, stdin=BODY)
        is_whole(got)
        assert got.interim == (http == "1.1"), f"{got.interim} interim answers"
        assert 0.45 <= service.seen[0]["first"] < 10, service.seen


@case("a visitor who leaves while it waits for 100 Continue is noticed", ENTRIES, how="close")
@case("a visitor who resets while it waits for 100 Continue is noticed", ENTRIES, how="reset")
@case("h2: a visitor who leaves while it waits for 100 Continue is noticed", ENTRIES, how="h2")
async def left(t, how):
    service = Service(after=20)
    settings = '[timeouts]\ncontinue_wait = "20s"\n'
    async with answering(t, f"left-{how}", service, settings=settings) as world:
        fields = ["Content-Length: 1000", "Expect: 100-continue"]
        if how == "h2":
            connection = await frames.Http2.open(int(world.http.split(":")[1]))
            asked = frames.request(b"/", b"POST") + [(b"content-length", b"1000"), (b"expect", b"100-continue")]
            connection.send(frames.headers(1, asked, end=False))
        async with visiting(world.http) as visitor:
            if how != "h2":
                visitor.ask("POST / HTTP/1.1", fields)
            while not service.seen:
                await asyncio.sleep(0.01)
            if how == "h2":
                connection.send(frames.frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4, "big")))
            elif how == "reset":
                linger = struct.pack("ii", 1, 0)
                visitor.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                visitor.leave()
        began = time.monotonic()
        await world.pair.clean(5)
        late = time.monotonic() - began
        t.note(f"{late:.2f} s")
        assert late < 2, f"only after {late:.2f} s"
        if how == "h2":
            await connection.close()


@case("a body that was not asked for is never read as a request", ENTRIES)
async def unasked(t):
    refusal = b"HTTP/1.1 401 Said\r\nContent-Length: 2\r\n\r\nno"
    service = Service(refusal, after=0.2)
    async with answering(t, "unasked", service) as world, visiting(world.http) as visitor:
        inner = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        for fields in (["Content-Length: %d" % len(inner)], ["Transfer-Encoding: chunked"]):
            # Who does not wait sends it at once.
            async with visiting(world.http) as visitor:
                visitor.ask("POST / HTTP/1.1", ["Expect: 100-Continue", *fields], inner)
                status, said, interim = await visitor.final()
                assert (status, interim, said[b"connection"]) == (401, 0, b"close"), (status, interim, said)
                visitor.writer.write(inner)
                assert await visitor.rest() == b"no", "one answer, and the end"
        assert len(service.seen) == 2 and all(seen["body"] == 0 for seen in service.seen), service.seen


@case("an expectation that nobody can meet is a 417", ENTRIES)
async def unknown(t):
    service = Service()
    async with answering(t, "unknown", service) as world:
        for value in ("200-ok", "100-continue, other", "100-continued"):
            for http in ("1.1", "2"):
                got = await curl(f"http://{world.http}/", "-H", f"Expect: {value}", http=http)
                assert got.status == 417 and got.one("x-strait-error") == b"bad_request", (value, http, got.status)
        assert not service.seen, service.seen
        # Nothing is expected by HTTP/1.0, without a body, or with an empty field.
        for line, fields, sent in (
            ("POST / HTTP/1.0", ["Expect: 200-ok", "Content-Length: 1"], b"x"),
            ("POST / HTTP/1.1", ["Expect: 100-continue", "Content-Length: 0"], b""),
            ("POST / HTTP/1.1", ["Expect:", "Content-Length: 1"], b"x"),
        ):
            service.seen.clear()
            async with visiting(world.http) as visitor:
                visitor.ask(line, fields, sent)
                status, _, interim = await visitor.final()
                # That is what the service says to whoever does not ask.
                assert (status, service.seen[0]["body"]) == (200, len(sent)), (line, fields, status)
                assert interim == 0 and b"expect" not in service.seen[0]["head"], (line, fields, interim)
