"""`strait demo`: starts, its page answers through the tunnel, ends on SIGTERM."""

import signal

from case import case
from curl import curl
from process import Process, free_port, up
from strait import BIN


@case("strait demo: the page answers, SIGTERM ends it", ("once",), seconds=40)
async def demo(t):
    port = free_port()
    program = await Process.start("demo", BIN, "demo", "--port", str(port), split=True)
    await up(program, port)
    got = (await curl(f"http://127.0.0.1:{port}/")).is_ok()
    assert got.one("content-type").startswith(b"text/html") and b"<script" in got.body, got.headers
    assert b"strait" in got.body.lower()
    program.signal(signal.SIGTERM)
    code = await program.ended(10)
    assert code == 0, f"exit code {code}:\n{program.tail()}"
