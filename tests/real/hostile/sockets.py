"""Frames that are no frames: to visitors with a WebSocket."""

from hostile import messages as m
from hostile.messages import pb
from hostile.row import Row
from hostile.visitors import CUT

MAX_MESSAGE = 16 << 20
# Whether the handshake was answered already decides how a visitor sees a cut.
BROKEN = (502, 1011)


def socket(name: str, shown: tuple, *frames, violations=(0,), resets=None) -> Row:
    """A socket that is accepted and then gets `frames`."""
    def send(no):
        return [m.ws_answer(no), *(frame(no) for frame in frames)]

    return Row(name, send, "ws", shown, resets, violations)


def one(**frame):
    return lambda no: m.frame(no, **frame)


def close(code: int, sequence: int = 1):
    """The last frame of a socket, and the end of the answer."""
    return one(sequence=sequence, opcode=8, payload=code.to_bytes(2, "big"), is_last_chunk=True)


FRAMES = [
    socket("frames and a close", (1000,), one(payload=b"hi"), close(1000, 2)),
    # Refused before the handshake is answered.
    Row("a frame before the handshake", lambda no: m.frame(no, 0, b"x"), "ws", (502,), ("PROTOCOL",), (1,)),
    Row("a handshake answered twice", lambda no: [m.ws_answer(no), m.ws_answer(no, sequence=1)], "ws", (502, 1011),
        ("PROTOCOL",), (1,)),
    Row("a handshake answered with 200", lambda no: [m.ws_answer(no, 200), m.frame(
        no, 1, b"no", is_first_piece=False, is_last_piece=False, is_last_chunk=True)], "ws", (200,)),
    Row("a handshake answered with 99", lambda no: m.ws_answer(no, 99), "ws", (502,), ("PROTOCOL",), (1,)),
    socket("a frame after the close", (1000,), one(opcode=8, payload=b"\x03\xe8"),
           one(sequence=2, payload=b"x", is_last_chunk=True)),
    *(socket(f"opcode {code}", (1011,), one(opcode=code)) for code in (3, 7, 11, 15)),
    *(socket(f"opcode {code}", BROKEN, one(opcode=code), violations=(1,), resets=("PROTOCOL",)) for code in (16, 99)),
    socket("a ping of 126 bytes", (1011,), one(opcode=9, payload=bytes(126))),
    socket("a pong in two frames", (1011,), one(opcode=10, payload=b"x", fin=False)),
    socket("a close of one byte", (1011,), one(opcode=8, payload=b"x")),
    *(socket(f"close code {code}", (1011,), close(code))
      for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
    # Credit may cut it anywhere, so it is judged when it is whole.
    socket("a close in two pieces", (1000,), one(opcode=8, payload=b"\x03", length=2, is_last_piece=False),
           one(sequence=2, payload=b"\xe8", is_first_piece=False, is_last_chunk=True)),
    socket("close code 1005 in two pieces", (1011,), one(opcode=8, payload=b"\x03", length=2, is_last_piece=False),
           one(sequence=2, payload=b"\xed", is_first_piece=False)),
    socket("a continuation of nothing", (1011,), one(opcode=0, payload=b"x")),
    socket("a message within a message", (1011,), one(payload=b"a", fin=False), one(sequence=2, payload=b"b")),
    socket("a reserved bit that nobody agreed on", (1011,), one(payload=b"x", reserved=4)),
    socket("reserved bits of eight", BROKEN, one(payload=b"x", reserved=8), violations=(1,), resets=("PROTOCOL",)),
    # Within a frame nothing but a cut is left to show.
    socket("a frame shorter than it says", (1011, CUT), one(payload=b"abc", length=10)),
    socket("a frame longer than it says", (1011, CUT), one(payload=b"abc", length=2)),
    socket("a frame that begins within another", (1011, CUT), one(payload=b"abc", length=10, is_last_piece=False),
           one(sequence=2, payload=b"x")),
    socket("a piece of no frame", (1011,), one(payload=b"abc", is_first_piece=False)),
    socket("a frame over the limit", (1009, 1011), one(payload=b"abc", length=MAX_MESSAGE + 1, is_last_piece=False)),
    socket("a frame of 2^63 bytes", (1009, 1011), one(payload=b"abc", length=2**63, is_last_piece=False)),
    socket("frames of the wrong direction", BROKEN, one(payload=b"abc", asking=True), violations=(1,), resets=("PROTOCOL",)),
    socket("frames of no direction", (1000,), one(payload=b"abc", direction=pb.DIRECTION_UNSPECIFIED),
           close(1000, 2)),
    socket("an end without a close", (CUT, 1005, 1006, 1011, 1014), lambda no: m.frame(
        no, 1, is_first_piece=False, is_last_piece=False, is_last_chunk=True)),
    socket("a reset of a socket", (502, 1014), lambda no: m.reset(no, "REASON_BACKEND_INVALID")),
]
