"""How a case is written: an async function with a name, modes and a time limit."""

from dataclasses import dataclass, field

ENTRIES = ("server-entry", "client-entry")
ALL = ("direct", *ENTRIES)
ONCE = ("once",)

CASES: list["Case"] = []


@dataclass
class Case:
    """One promise, tried in one or more modes."""

    name: str
    function: object
    modes: tuple[str, ...]
    seconds: float
    arguments: dict = field(default_factory=dict)


def case(name: str, modes=ALL, seconds: float = 30, **arguments):
    """Declares a case. Further arguments are handed to the function, and several
    declarations may share one function."""

    def declare(function):
        CASES.append(Case(name, function, modes, seconds, arguments))
        return function

    return declare


class Skip(Exception):
    """The case cannot be tried here; says why."""


class Test:
    """What a running case is given."""

    def __init__(self, mode: str, world, backends):
        self.mode, self.world, self.backends = mode, world, backends
        self.notes: list[str] = []
        self.own: list = []

    def note(self, text: str) -> None:
        """Something measured, printed beside the result."""
        self.notes.append(text)

    async def alone(self, name: str, mode: str = "", **flags):
        """A world with a pair of its own, ended with the case."""
        from world import World

        world = await World.start(mode or self.mode, self.backends, name, **flags)
        self.own.append(world)
        return world

    async def fast(self, name: str, port: int = 0):
        """A backend for load of its own and its port, ended with the case."""
        from world import fast

        process, port = await fast(name, port)
        self.own.append(process)
        return process, port

    async def pair(self, name: str, **options):
        """A pair of its own, not yet started, ended with the case."""
        from strait import Pair

        pair = Pair(name, **options)
        self.own.append(_Closing(pair))
        return pair


class _Closing:
    def __init__(self, pair):
        self.pair = pair

    async def stop(self):
        await self.pair.down()

    def tail(self):
        return self.pair.tail()
