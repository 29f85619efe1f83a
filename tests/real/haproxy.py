"""Debian's haproxy before an entry: what it says of its visitors, and how."""

from process import OUT, Process, free_port, up

CONFIG = """global
  log stderr format raw local0
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"""


class Frontend:
    """A port of haproxy that passes on to another one of 127.0.0.1."""

    def __init__(self, to: int, mode: str = "tcp", server: str = "", rules: tuple[str, ...] = ()):
        self.port, self.to, self.mode, self.server, self.rules = free_port(), to, mode, server, rules

    def text(self) -> str:
        """As it stands in the configuration."""
        lines = [f"listen p{self.port}", f"bind 127.0.0.1:{self.port}", f"mode {self.mode}", *self.rules]
        return "\n  ".join([*lines, f"server one 127.0.0.1:{self.to} {self.server}"]) + "\n"


async def haproxy(t, name: str, *frontends: Frontend) -> Process:
    """Starts one haproxy with these ports, ended with the case."""
    file = OUT / f"{name}-haproxy.cfg"
    file.write_text(CONFIG + "".join(frontend.text() for frontend in frontends))
    process = await Process.start(f"{name}-haproxy", "haproxy", "-db", "-f", file)
    t.own.append(process)
    for frontend in frontends:
        await up(process, frontend.port)
    return process
