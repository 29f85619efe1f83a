"""Answers that are no answers: to plain requests and to calls."""

from hostile import messages as m
from hostile.messages import GRPC_HEAD, pb
from hostile.row import Row
from hostile.visitors import CUT

ONE = (1,)
PROTOCOL = ("PROTOCOL",)
# Whether the head was shown already decides how a visitor sees that an answer was cut.
BROKEN = (502, CUT)


def wrong(name: str, send, shown=(502,), visit: str = "http", resets=PROTOCOL) -> Row:
    """A violation, which costs the request and is counted."""
    return Row(name, send, visit, shown, resets, ONE)


def bad(name: str, send, shown=(502,), visit: str = "http") -> Row:
    """No violation of the tunnel's protocol, but no answer for a visitor either."""
    return Row(name, send, visit, shown)


ORDER = [
    wrong("a chunk before the first", lambda no: m.http(no, body=b"x")),
    wrong("an end before the first", lambda no: m.http(no, is_last_chunk=True)),
    wrong("a first chunk twice", lambda no: [m.answer(no, last=False), m.answer(no, sequence=1)], BROKEN),
    wrong("a gap in the sequence", lambda no: [m.answer(no, last=False), m.http(no, 2, body=b"x")], BROKEN),
    wrong("a sequence that begins late", lambda no: m.answer(no, sequence=1)),
    wrong("a sequence number twice", lambda no: [m.answer(no, last=False), m.http(no, 0, body=b"x")], BROKEN),
    wrong(
        "a request's chunk in the place of an answer",
        lambda no: m.request(no, first=False, body=b"x"),
    ),
    # Whether the number is still in use when it comes decides whether it is late or wrong.
    Row("a chunk after the last", lambda no: [m.answer(no, body=b"ok"), m.http(no, 1, body=b"x")], "http", (200,),
        violations=(0, 1), check=lambda stage, peer, shown: _is(shown.body, b"ok")),
    Row("two answers", lambda no: [m.answer(no, body=b"ok"), m.answer(no, 500, body=b"no", sequence=1)], "http",
        (200,), violations=(0, 1), check=lambda stage, peer, shown: _is(shown.body, b"ok")),
    Row("the last chunk twice", lambda no: [m.answer(no, body=b"ok"), m.http(no, 1, is_last_chunk=True)], "http",
        (200,), violations=(0, 1)),
]


def _is(got, wanted) -> None:
    assert got == wanted, f"{got!r} instead of {wanted!r}"


OTHERS = {
    "http": lambda no: m.answer(no),
    "grpc": lambda no: m.grpc(no, is_last_chunk=True, **GRPC_HEAD),
    "ws": lambda no: m.ws_answer(no),
    "a frame": lambda no: m.frame(no, 0, b"x"),
}
REFUSED = {"http": (502,), "grpc": ("INTERNAL",), "ws": (502,)}
PROTOCOLS = [
    wrong(f"{other} for {own}", send, REFUSED[own], own)
    for own in REFUSED
    for other, send in OTHERS.items()
    # A frame is of the right protocol for a socket, but comes before its handshake.
    if other != own
]

HEADS = [
    *(wrong(f"status {status}", lambda no, status=status: m.answer(no, status)) for status in (0, 99, 101, 199, 1000, 65736)),
    *(bad(f"status {status}", lambda no, status=status: m.answer(no, status)) for status in (600, 999)),
    bad("204 with a body", lambda no: m.answer(no, 204, body=b"x")),
    bad("304 with a body", lambda no: m.answer(no, 304, body=b"x")),
    *(
        wrong(f"a header that is {name}", lambda no, pair=pair: m.answer(no, headers=[pair]))
        for name, pair in {
            "named 'a b'": ("a b", "1"), "named nothing": ("", "1"), "named :status": (":status", "200"),
            "named with a NUL": (b"a\0", "1"), "of CRLF": ("x", "a\r\nset-cookie: b"), "of NUL": ("x", b"a\0b"),
            "of LF": ("x", "a\nb"),
        }.items()
    ),
    wrong("10,000 headers", lambda no: m.answer(no, headers=[(f"x{n}", "1") for n in range(10_000)])),
    bad("a header of 900 KB", lambda no: m.answer(no, headers=[("x", "y" * 900_000)])),
    bad("two content-lengths", lambda no: m.answer(no, headers=[("content-length", "2"), ("content-length", "3")], body=b"ok")),
    bad("a content-length of words", lambda no: m.answer(no, headers=[("content-length", "two")], body=b"ok")),
    bad("a content-length beyond the body", lambda no: m.answer(no, headers=[("content-length", "9")], body=b"ok"), BROKEN),
    bad("a content-length short of the body", lambda no: m.answer(no, headers=[("content-length", "1")], body=b"ok"), BROKEN),
    bad("a content-length without a body", lambda no: m.answer(no, headers=[("content-length", "9")])),
    Row(
        "hop-by-hop fields",
        lambda no: m.answer(no, headers=[
            ("transfer-encoding", "chunked"), ("connection", "x-mine, keep-alive"), ("x-mine", "1"),
            ("keep-alive", "timeout=5"), ("upgrade", "h2c"), ("x-other", "2"),
        ], body=b"ok"),
        "http", (200,), check=lambda stage, peer, shown: _hops(shown),
    ),
]


def _hops(shown) -> None:
    # The framing of the visitor's own connection is what the entry says.
    own = [("connection", "close"), ("transfer-encoding", "chunked")]
    names = [name for name, value in shown.headers if (name, value) not in own]
    gone = {"x-mine", "keep-alive", "upgrade", "connection", "transfer-encoding"} & set(names)
    assert shown.headers.count(own[1]) == 1, f"two framings of one body: {shown}"
    assert not gone and "x-other" in names and shown.body == b"ok", f"{gone} came through: {shown}"


def call(name: str, shown: str, *chunks, violations=(0,)) -> Row:
    """A call whose answer begins well and goes on with `chunks`."""
    def send(no):
        return [m.grpc(no, **GRPC_HEAD), *(chunk(no) for chunk in chunks)]

    return Row(name, send, "grpc", (shown,), violations=violations)


OK_TRAILERS = [("grpc-status", "0")]
CALLS = [
    call("a whole call", "OK", lambda no: m.grpc(no, 1, [b"fine"], trailers=OK_TRAILERS, is_last_chunk=True)),
    call("a message shorter than it says", "INTERNAL",
         lambda no: m.grpc(no, 1, [m.message(b"abc", 10)], trailers=OK_TRAILERS, is_last_chunk=True)),
    call("a message longer than it says", "INTERNAL",
         lambda no: m.grpc(no, 1, [m.message(b"abc", 2)], trailers=OK_TRAILERS, is_last_chunk=True)),
    call("a message that begins within another", "INTERNAL",
         lambda no: m.grpc(no, 1, [m.message(b"abc", 10, end=False), b"x"], trailers=OK_TRAILERS, is_last_chunk=True)),
    call("a piece of no message", "INTERNAL",
         lambda no: m.grpc(no, 1, [m.message(b"abc", start=False)], trailers=OK_TRAILERS, is_last_chunk=True)),
    call("trailers within a message", "INTERNAL",
         lambda no: m.grpc(no, 1, [m.message(b"abc", 10, end=False)], trailers=OK_TRAILERS, is_last_chunk=True)),
    call("trailers with a NUL", "INTERNAL",
         lambda no: m.grpc(no, 1, trailers=[("x", b"a\0")], is_last_chunk=True), violations=ONE),
    call("an end without trailers", "UNKNOWN", lambda no: m.grpc(no, 1, [b"fine"], is_last_chunk=True)),
    call("a gap in the sequence of a call", "INTERNAL", lambda no: m.grpc(no, 2, [b"fine"]), violations=ONE),
]

CREDIT = [
    Row("data beyond the credit", lambda no: m.answer(no, body=bytes(300_000)), "http", (502,), ("FLOW_CONTROL",), ONE),
    Row("many pieces beyond the credit", lambda no: m.grpc(no, pieces=[m.message(b"")] * 5000, **GRPC_HEAD), "grpc",
        ("INTERNAL",), ("FLOW_CONTROL",), ONE),
    Row("credit of nothing", lambda no: m.credit(no, 0), "http", (502,), ("FLOW_CONTROL",), ONE),
    Row("credit of 2^32 - 1", lambda no: m.credit(no, 2**32 - 1), "http", (502,), ("FLOW_CONTROL",), ONE),
    Row("credit beyond 2^31 in sum", lambda no: [m.credit(no, 2**30), m.credit(no, 2**30)], "http", (502,),
        ("FLOW_CONTROL",), ONE),
    Row("credit for a request of nobody", lambda no: m.credit(no + 1000, 10), violations=ONE),
    Row("credit for a finished request", lambda no: [m.answer(no, body=b"ok"), m.credit(no, 10)], "http", (200,)),
]

IDENTITY = [
    Row("an answer for a request of nobody", lambda no: m.answer(no + 1000, body=b"stolen"), violations=ONE),
    Row("an answer for request 0", lambda no: m.answer(0, body=b"stolen"), violations=ONE),
    Row("an answer of another client's name", lambda no: _as_friend(m.answer(no, body=b"ok")), "http", (200,)),
    Row("a reset of a request of nobody", lambda no: m.reset(no + 1000)),
    Row("a reset of a finished request", lambda no: [m.answer(no, body=b"ok"), m.reset(no)], "http", (200,)),
    Row("a reset in the place of an answer", lambda no: m.reset(no, "REASON_BACKEND_REFUSED"), "http", (502,)),
    Row("a reset without a reason", lambda no: m.reset(no, "REASON_NONE"), "http", (500, 502)),
    Row("a reset with a reason of a newer peer", lambda no: m.reset(no, 999), "http", (500, 502)),
]


def _as_friend(message):
    message.client_id, message.request_id = "friend", "00000000-0000-4000-8000-000000000000"
    return message


UNKNOWN = [
    Row("no payload", lambda no: pb.TunnelMessage(number=no, protocol_type=pb.HTTP)),
    Row("no payload and no number", lambda no: pb.TunnelMessage(client_id="x")),
    Row("an empty control", lambda no: pb.TunnelMessage(control=pb.Control())),
    Row("a payload of a newer peer", lambda no: b"\xfa\x06\x03abc" + b"\x90\x01" + bytes([no])),
    Row("an unknown enum value", lambda no: _of(m.answer(no, body=b"ok"), protocol_type=99, direction=77), "http", (200,)),
    Row("no protocol and no direction", lambda no: _of(m.answer(no, body=b"ok"), protocol_type=0, direction=0), "http",
        (200,)),
    Row("a pong that nobody asked for", lambda no: m.pong(4711)),
    Row("an answer to no announcement", lambda no: pb.TunnelMessage(
        config_sync=pb.ConfigSync(is_answer=True, revision=9, refused=[pb.Refusal(service="x\n\0", message="y\x1b[31m")]))),
]


def _of(message, **changes):
    for name, value in changes.items():
        setattr(message, name, value)
    return message
