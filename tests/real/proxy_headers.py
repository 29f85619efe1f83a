"""Headers of the PROXY protocol, good ones and others (proxy-protocol.txt of haproxy, 2.1 and 2.2)."""

import random
import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
TCP4, UDP4, TCP6, UNIX = 0x11, 0x12, 0x21, 0x31
# Bytes of the longest header of version 2 that an entry takes.
LONGEST = 4096


def line(source: str, port: int = 4000) -> bytes:
    """A header of version 1."""
    family, target = ("TCP6", "2001:db8::9") if ":" in source else ("TCP4", "192.0.2.9")
    return f"PROXY {family} {source} {target} {port} 443\r\n".encode()


def addresses(source: str, port: int = 4000) -> bytes:
    """The addresses in a header of version 2."""
    kind, target = (socket.AF_INET6, "2001:db8::9") if ":" in source else (socket.AF_INET, "192.0.2.9")
    return socket.inet_pton(kind, source) + socket.inet_pton(kind, target) + struct.pack(">HH", port, 443)


def field(kind: int, value: bytes) -> bytes:
    """A field (TLV) in a header of version 2."""
    return struct.pack(">BH", kind, len(value)) + value


def binary(body: bytes, command: int = PROXY, family: int = TCP4, length: int | None = None) -> bytes:
    """A header of version 2; `length` is a lie where it is given."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if length is None else length) + body


def good(source: str) -> dict[str, bytes]:
    """Headers that name this visitor."""
    family = TCP6 if ":" in source else TCP4
    some = field(0x02, b"a.example") + field(0x04, b"") + field(0xEE, b"anything")
    room = LONGEST - len(binary(addresses(source), family=family)) - 3
    return {
        "version 1": line(source),
        "version 2": binary(addresses(source), family=family),
        "with fields": binary(addresses(source) + some, family=family),
        "the longest": binary(addresses(source) + field(0x04, b"\0" * room), family=family),
    }


def nameless() -> dict[str, bytes]:
    """Headers that name nobody: the connection's own address counts."""
    return {
        "UNKNOWN": b"PROXY UNKNOWN\r\n",
        "UNKNOWN with more": b"PROXY UNKNOWN ffff:f:: whatever\r\n",
        "LOCAL": binary(b"", LOCAL, 0),
        "LOCAL with addresses": binary(addresses("198.51.100.7"), LOCAL),
        "LOCAL of no family": binary(b"whatever", LOCAL, 0x77),
        "unspecified": binary(field(0x04, b"12"), PROXY, 0),
        "datagrams": binary(addresses("198.51.100.7"), PROXY, UDP4),
        "a unix socket": binary(b"/run/a.sock".ljust(216, b"\0"), PROXY, UNIX),
    }


def bad() -> dict[str, bytes]:
    """What is no header, each whole, so that no more is to come."""
    ends, noise = addresses("198.51.100.7"), random.Random(11)
    rows = {
        "none": b"",
        "an ending in LF": line("198.51.100.7").replace(b"\r", b""),
        "another word": line("198.51.100.7").replace(b"PROXY", b"proxy"),
        "no space": line("198.51.100.7").replace(b"PROXY ", b"PROXY-"),
        "two spaces": line("198.51.100.7").replace(b" 4000", b"  4000"),
        "a family that is none": line("198.51.100.7").replace(b"TCP4", b"TCP5"),
        "addresses of another family": line("198.51.100.7").replace(b"TCP4", b"TCP6"),
        "a name": b"PROXY TCP4 localhost localhost 1 2\r\n",
        "a port with a sign": line("198.51.100.7").replace(b" 4000", b" +4000"),
        "a port too large": line("198.51.100.7", 65536),
        "a missing port": b"PROXY TCP4 198.51.100.7 192.0.2.9 4000\r\n",
        "a line of 108 bytes": b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
        "an endless line": b"PROXY UNKNOWN ".ljust(100_000, b"x"),
        "version 1": binary(ends, 0x11),
        "version 3": binary(ends, 0x31),
        "command 2": binary(ends, 0x22),
        "family 4": binary(ends, PROXY, 0x41),
        "transport 3": binary(ends, PROXY, 0x13),
        "too short for IPv4": binary(ends[:-1], PROXY),
        "too short for IPv6": binary(ends, PROXY, TCP6),
        "too short for a unix socket": binary(b"\0" * 215, PROXY, UNIX),
        "a cut field": binary(ends + field(0x04, b"1234")[:-1]),
        "a field without a length": binary(ends + b"\x04\0"),
        "a field of 64 KiB": binary(ends + struct.pack(">BH", 4, 0xFFFF)),
        "a byte too long": binary(ends + field(0x04, b"\0" * (LONGEST - 16 - len(ends) - 3 + 1))),
        "64 KiB": binary(ends.ljust(0xFFFF, b"\0")),
        "a signature with a wrong byte": SIGNATURE[:-1] + b"\r" + binary(ends)[12:],
        "a TLS hello": bytes.fromhex("16030100f5010000f10303") + noise.randbytes(234),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }
    for number in range(20):
        rows[f"noise {number}"] = noise.randbytes(noise.randrange(1, 300))
    # "P" and CR could begin a header.
    return {name: row for name, row in rows.items() if not name.startswith("noise") or row[:1] not in (b"P", b"\r")}
