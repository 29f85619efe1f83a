"""Requests that the peer opens: what it may ask for, and how."""

from hostile import messages as m
from hostile.row import Row
from hostile.stage import MAX_REQUESTS

NOWHERE = ("NO_ROUTE",)


def untouched(stage, peer, shown) -> None:
    """Nothing was dialled. (At its start a node looks once whether its backends accept.)"""
    assert stage.backend.connections <= 1 and not stage.backend.heads, stage.backend.heads


def answered(status: int, body: bytes | None = None, heads: int | None = None):
    """The node answers the request of this side that was sent last."""
    def check(stage, peer, shown) -> None:
        answers = peer.of("http_response")
        assert [a.http_response.status for a in answers[:1]] == [status], f"{answers!s:.300}"
        whole = b"".join(a.http_response.body for a in answers)
        assert body is None or whole == body, whole
        assert heads is None or len(stage.backend.heads) == heads, stage.backend.heads

    return check


def refused(name: str, reason: str, violations=(0,), **request) -> Row:
    """A request that reaches nobody."""
    return Row(name, lambda no: m.request(no, **request), resets=(reason,), violations=violations, check=untouched)


NAMES = [
    Row("a request for what is offered", lambda no: m.request(no), resets=(), check=answered(200, b"own\n", 1), waits=True),
    *(refused(f"service {name!r}", "NO_ROUTE", service=name) for name in (
        "nobody", "127.0.0.1:22", "http://127.0.0.1:1/", "..", "../own", "OWN", "own ", "own\0", "friend", "hostile", "x" * 5000)),
    refused("no service, for a path of nobody", "NO_ROUTE", service="", path=b"/elsewhere"),
    refused("a path that the service does not have", "NO_ROUTE", path=b"/secret"),
    refused("a path beside the service's", "NO_ROUTE", path=b"/ownership"),
    refused("an address in the place of a path", "NO_ROUTE", path=b"http://127.0.0.1:1/own/"),
    Row("a protocol that the service does not take", lambda no: m.pb.TunnelMessage(
        number=no, request_id="0b6cd5b0-3c1f-4bb4-8d33-7a3bd9e7a001", service="own", protocol_type=m.pb.GRPC,
        grpc_request=m.pb.GrpcRequest(is_first_chunk=True, is_last_chunk=True, scheme=b"http", authority=b"a", path=b"/own/Call"),
    ), resets=NOWHERE, check=untouched),
]

IDS = [
    *(refused(f"request_id {shown}", "PROTOCOL", (1,), request_id=value) for shown, value in {
        "empty": "", "of 10 KiB": "a" * 10_240, "of words": "not-a-uuid", "with a NUL": "0b6cd5b0-3c1f-4bb4-8d33-7a3bd9e7a0\0",
        "without dashes": "0b6cd5b03c1f4bb48d337a3bd9e7a001x"}.items()),
    Row("a client_id of another", lambda no: m.request(no, client_id="friend"), resets=(), check=answered(200), waits=True),
    Row("a trace of 10 KiB with newlines", lambda no: m.request(no, trace_id="a\n\x1b[31m\0" * 2000), resets=(),
        check=lambda stage, peer, shown: _logged(stage, peer), waits=True),
]


def _logged(stage, peer) -> None:
    answered(200)(stage, peer, None)
    trace = [line.get("trace", "") for line in stage.node.lines(stage.role)]
    assert all(len(t) <= 128 for t in trace), [len(t) for t in trace]
    head = stage.backend.heads[0]
    assert "\x1b" not in head and len(head) < 1000, head


NUMBERS = [
    Row("number 0", lambda no: m.request(0), violations=(1,), check=untouched),
    Row("a number of the other side", lambda no: m.request(no + 1001), violations=(1,), check=untouched),
    Row("a number twice", lambda no: [m.request(no, path=b"/own/wait"), m.request(no, sequence=1)], resets=("PROTOCOL",),
        violations=(1,)),
    # A number that does not increase is taken for a late message.
    Row("a number that falls", lambda no: [m.request(no + 10), m.request(no)], resets=(), check=answered(200, heads=1), waits=True),
    Row("a body before its request", lambda no: m.request(no, first=False, body=b"x"), violations=(1,), check=untouched),
    Row("a gap in the sequence of a request", lambda no: [
        m.request(no, last=False, method=b"POST", path=b"/own/wait"), m.request(no, 5, first=False, body=b"x")], resets=("PROTOCOL",), violations=(1,)),
    Row("a chunk after the last of a request", lambda no: [
        m.request(no, path=b"/own/wait"), m.request(no, 1, first=False, body=b"x")], resets=("PROTOCOL",), violations=(1,)),
    Row("an answer to its own request", lambda no: [
        m.request(no, path=b"/own/wait"), m.answer(no, sequence=1)], resets=("PROTOCOL",), violations=(1,)),
    refused("a body beyond the credit", "FLOW_CONTROL", (1,), body=bytes(m.CREDIT)),
    refused("credit of 2^32 - 1", "FLOW_CONTROL", (1,), answer_credit=2**32 - 1),
]

HEADS = [
    refused("no method", "PROTOCOL", (1,), method=b""),
    refused("a method with a space", "PROTOCOL", (1,), method=b"GET /"),
    refused("scheme ftp", "PROTOCOL", (1,), scheme=b"ftp"),
    refused("a header name with a space", "PROTOCOL", (1,), headers=[("a b", "1")]),
    refused("a header value of CRLF", "PROTOCOL", (1,), headers=[("x", "1\r\nhost: evil")]),
    refused("a path of CRLF", "NO_ROUTE", path=b"/\r\nhost: evil"),
    *(Row(f"a path {shown}", lambda no, path=path: m.request(no, path=path), resets=("BAD_REQUEST",), check=untouched)
      for shown, path in {"of CRLF below the service's": b"/own/\r\nhost: evil", "with a space": b"/own/ HTTP/1.1"}.items()),
    *(Row(f"an authority {shown}", lambda no, authority=authority: m.request(no, authority=authority),
          resets=("BAD_REQUEST",), check=untouched)
      for shown, authority in {"of CRLF": b"a\r\nx: y", "with a space": b"a b"}.items()),
    Row("two framings and two hosts", lambda no: m.request(no, method=b"POST", body=b"abc", headers=[
        ("transfer-encoding", "chunked"), ("content-length", "3"), ("host", "evil"), ("connection", "x-mine"), ("x-mine", "1")]),
        check=lambda stage, peer, shown: _clean(stage), waits=True),
    refused("nine tunnels passed", "LOOP", hop_count=9),
    Row("a deadline of a microsecond", lambda no: m.request(no, path=b"/own/wait", deadline_us=1), resets=("DEADLINE",),
        waits=True),
    Row("a deadline of half a million years", lambda no: m.request(no, deadline_us=2**64 - 1, urgency=2**32 - 1), resets=(),
        check=answered(200), waits=True),
]


def _clean(stage) -> None:
    head = stage.backend.heads[0].lower()
    names = [line.split(":")[0] for line in head.split("\r\n")[1:]]
    assert names.count("host") == 1 and "host: visitor.test" in head, head
    assert ("transfer-encoding" in names) + ("content-length" in names) == 1 and "x-mine" not in names, head


def _held(stage, peer, shown) -> None:
    refusals = [reason for _, reason in peer.resets()]
    assert refusals == ["OVERLOADED"] * (FLOOD - MAX_REQUESTS), f"{len(refusals)} of {set(refusals)}"


FLOOD = 5000
LIMITS = [
    Row(f"{FLOOD} requests without an end", lambda no: [m.request(no + 2 * n, path=b"/own/wait") for n in range(FLOOD)],
        check=_held),
]
