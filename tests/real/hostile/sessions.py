"""What costs a peer its session."""

import random

from hostile import messages as m
from hostile.messages import pb
from hostile.row import Row

UNREADABLE = ("INTERNAL", "")
MESSAGE_LIMIT = 1 << 20


def fatal(name: str, send, code: str = "INTERNAL", words: str = "", violations=(0,)) -> Row:
    return Row(name, send, "http", (502,), violations=violations, ended=(code, words))


def nested(depth: int) -> bytes:
    """Groups of an unknown field within one another."""
    return bytes([0x93, 0x06]) * depth + bytes([0x94, 0x06]) * depth


BYTES = [
    *(fatal(f"random bytes, seed {seed}", lambda no, seed=seed: b"\xff" + random.Random(seed).randbytes(1024), words="field|number|text")
      for seed in range(4)),
    fatal("a message that is cut short", lambda no: m.answer(no, body=bytes(1000)).SerializeToString()[:-1], words="cut short"),
    fatal("a number where a text belongs", lambda no: b"\x08\x01", words="bytes"),
    fatal("a text where a number belongs", lambda no: b"\x92\x01\x01x", words="number"),
    fatal("a text that is not UTF-8", lambda no: b"\x0a\x02\xff\xfe", words="UTF-8"),
    fatal("field 0", lambda no: b"\x00\x01", words="number 0"),
    fatal("a number of eleven bytes", lambda no: b"\x90\x01" + b"\xff" * 11, words="too long"),
    fatal("groups nested 1,000 deep", lambda no: nested(1000), words="deep"),
    fatal("a group that does not end", lambda no: nested(2)[:-2], words=""),
    Row("groups nested 50 deep", lambda no: [nested(50), m.answer(no, body=b"ok")], "http", (200,)),
    fatal("a message over the limit", lambda no: m.answer(no, headers=[("x", "y" * MESSAGE_LIMIT)]), "RESOURCE_EXHAUSTED", "1048576|limit|large"),
    fatal("a message of 40 MiB", lambda no: bytes(40 << 20), "RESOURCE_EXHAUSTED", "1048576|limit|large"),
    # As large as allowed: far more than was granted, which costs the request alone.
    Row("a message of the largest size", lambda no: m.answer(no, body=bytes(MESSAGE_LIMIT - 100)), "http", (502,),
        ("FLOW_CONTROL",), (1,)),
]

RULES = [
    fatal("a second Hello", lambda no: m.hello(), "FAILED_PRECONDITION", "second Hello"),
    fatal("65 answers for requests of nobody", lambda no: [m.answer(no + 1000)] * 65, "INTERNAL", "too many protocol violations",
          (65,)),
    Row("64 answers for requests of nobody", lambda no: [*[m.answer(no + 1000)] * 64, m.answer(no)], "http", (200,),
        violations=(64,)),
    fatal("65 requests beyond their credit", lambda no: [m.request(n, body=bytes(m.CREDIT)) for n in _own(no)], "INTERNAL",
          "too many protocol violations", (65,)),
    fatal("65 malformed request ids", lambda no: [m.request(n, request_id="x") for n in _own(no)], "INTERNAL",
          "malformed request_id", (65,)),
]


def _own(no: int) -> range:
    """Numbers of the peer's own, whatever parity that is: its visitor's number has the other."""
    return range(no + 1, no + 1 + 2 * 65, 2)


def offer(**content):
    return m.announcement([pb.Service(**content)], 2)


def _refused(*names: str):
    def check(stage, peer, shown) -> None:
        got = tuple(refusal.service for refusal in peer.refused())
        assert got == names, f"refused were {got}, not {names}"

    return check


OFFERS = [
    *(Row(f"a service {shown}", lambda no, content=content: offer(**content), check=_refused(content["name"]))
      for shown, content in {
          "without a name": {"name": ""}, "named like a path": {"name": "../x"}, "with 65 letters": {"name": "x" * 65},
          "with an empty host": {"name": "a", "hosts": [""]}, "with 300 hosts": {"name": "a", "hosts": ["h"] * 300},
          "with a host of 300 letters": {"name": "a", "hosts": ["h" * 300]}, "with a path without slash": {"name": "a", "path_prefix": "x"},
          "with a query": {"name": "a", "path_prefix": "/x?y"}, "with a path of 2 KiB": {"name": "a", "path_prefix": "/" + "x" * 2048},
      }.items()),
    Row("20,000 services", lambda no: m.announcement([*(f"s{n}" for n in range(20_000)), "hostile"], 2), check=_refused()),
    Row("20,000 services of one route", lambda no: m.announcement(
        [*(pb.Service(name=f"s{n}", path_prefix="/same") for n in range(20_000)), "hostile"], 2), check=_refused()),
    Row("no service any more, and one again", lambda no: [m.announcement([], 2), m.announcement(["hostile"], 3)], check=_refused()),
]
