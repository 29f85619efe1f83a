"""Ports for processes that are told where to listen."""

import pathlib
import random
import socket

# The kernel picks the near ends of outgoing connections, and ports for whoever asks for "any", from
# a range of its own. What is free below it stays free until its process listens there; a port of
# that range may be somebody's connection by then.
_RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
_OURS = range(10_000, int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768)
_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that this process has not given out before."""
    # Somewhere, so that two runs at once do not look at the same ones.
    for port in random.sample(_OURS, min(1_000, len(_OURS))):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port among 1000 between {_OURS.start} and {_OURS.stop}")
