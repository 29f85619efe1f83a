"""curl, and what it says about an answer."""

import tempfile
import pathlib

from process import Ran, run

# Why curl ended.
OK, REFUSED, CUT, TIMEOUT, EMPTY_REPLY, SEND_FAILED, RECEIVE_FAILED, H2_FRAMING, H2_STREAM = (
    0, 7, 18, 28, 52, 55, 56, 16, 92,
)
# A transfer that ended early, in the words of either HTTP version.
CUTS = (CUT, RECEIVE_FAILED, H2_STREAM, H2_FRAMING)


class Got:
    """An answer, its head byte for byte."""

    def __init__(self, ran: Ran, blocks: list[bytes]):
        self.ran, self.code, self.body, self.seconds = ran, ran.code, ran.out, ran.seconds
        final = [b for b in blocks if not b.split(b"\r\n")[0].split(b" ")[1].startswith(b"1")]
        self.interim = len(blocks) - len(final)
        lines = final[-1].split(b"\r\n") if final else [b"HTTP/0 0"]
        self.status = int(lines[0].split(b" ")[1])
        self.version = lines[0].split(b" ")[0].decode()
        self.headers = [
            (name.decode("latin-1").lower(), value.strip())
            for name, _, value in (line.partition(b":") for line in lines[1:] if line)
        ]
        # Whatever follows the head's blank line in curl's header file is trailers.
        self.trailers: list[tuple[str, bytes]] = []

    def all(self, name: str) -> list[bytes]:
        """Every value of one header, in order."""
        return [value for n, value in self.headers if n == name]

    def one(self, name: str) -> bytes | None:
        """The value of a header that must not come twice."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def is_ok(self, status: int = 200) -> "Got":
        """Fails unless curl is content and the status is the one wanted."""
        assert self.code == 0, f"curl ended with {self.code}: {self.ran.errors[-600:]}"
        assert self.status == status, f"status {self.status} instead of {status}: {self.body[:300]!r}"
        return self


async def curl(url: str, *flags, http: str = "1.1", seconds: float = 25, stdin: bytes | None = None) -> Got:
    """Fetches `url`; `http` is 1.1 or 2 (prior knowledge)."""
    version = "--http2-prior-knowledge" if http == "2" else "--http1.1"
    with tempfile.TemporaryDirectory() as folder:
        heads = pathlib.Path(folder) / "heads"
        ran = await run(
            "curl", "-sS", version, "--max-time", seconds, "-D", heads, *flags, url,
            seconds=seconds + 5, stdin=stdin,
        )
        text = heads.read_bytes() if heads.exists() else b""
    # Each head ends with an empty line; trailers come after the last one.
    blocks, trailers = [], []
    for block in text.split(b"\r\n\r\n"):
        if block.startswith(b"HTTP/"):
            blocks.append(block)
        elif block.strip():
            trailers += block.strip().split(b"\r\n")
    got = Got(ran, blocks)
    got.trailers = [
        (n.decode("latin-1").lower(), v.strip()) for n, _, v in (line.partition(b":") for line in trailers)
    ]
    return got
