"""A browser: Debian's Chromium, headless, runs pages/browser.html and posts what it found."""

import shutil
import tempfile

from case import case
from process import Process, until

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

WANTED = {
    "fetch": [200, "hello\n"],
    "upload": True,
    "stream": 3,
    "abort": "AbortError",
    "events": ["0", "1", "2"],
    "text": ["grüße 🚀", "permessage-deflate", 3001, True],
    "binary": True,
    "closed": [4321, "because", True],
    "protocol": "chat.v2",
    "refused": 1006,
    "many": True,
}


@case("chromium: fetch, EventSource and WebSocket of a page", seconds=90)
async def page(t):
    note = f"browser-{t.mode}"
    home = tempfile.mkdtemp(prefix="strait-chromium-")
    url = f"http://{t.world.http}/page?name=browser&note={note}&ws={t.world.ws}"
    browser = await Process.start(f"chromium-{t.mode}", "chromium", *FLAGS, f"--user-data-dir={home}",
                                  "--remote-debugging-port=0", url, env={"HOME": home})
    try:

        async def reported():
            assert browser.alive, f"the browser ended:\n{browser.tail()}"
            return (await t.backends.seen()).get(note)

        found = await until("the page reports", reported, 75, 0.2)
    finally:
        await browser.stop()
        shutil.rmtree(home, ignore_errors=True)
    wrong = {name: found.get(name) for name in WANTED if found.get(name) != WANTED[name]}
    assert not wrong, f"the browser found {wrong}"
    seen = await t.backends.seen()
    assert f"{note}-abort:cancelled" in seen, "an aborted fetch went on at the backend"
