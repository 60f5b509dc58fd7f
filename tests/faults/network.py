"""A network for the harness: a namespace joined to this one by a pair of virtual interfaces."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

from attrs import define

from tests.faults.run import Skipped

#: A hardware address of no machine: frames to it are dropped.
_NOBODY = "02:00:00:00:00:99"


@define
class Link:
    """A link between this namespace, ``here``, and another, ``there``."""

    namespace: str
    #: Interfaces.
    near: str
    far: str
    here: str
    there: str
    #: The next address of the other side.
    elsewhere: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix for a command that is to run in the other namespace."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Drop all packets in both directions, without an error to either side."""
        _ip("link", "set", self.far, "down", at=self.namespace)

    def mend(self) -> None:
        """Pass all packets again."""
        _ip("link", "set", self.far, "up", at=self.namespace)

    def move(self) -> None:
        """Move the other side to the address ``elsewhere``; then the two addresses are swapped."""
        _ip("addr", "del", f"{self.there}/{_BITS}", "dev", self.far, at=self.namespace)
        _ip("addr", "add", f"{self.elsewhere}/{_BITS}", "dev", self.far, at=self.namespace)
        self.there, self.elsewhere = self.elsewhere, self.there

    def stall_from_there(self) -> None:
        """Drop packets to the other side. Packets to this side arrive."""
        _ip("neigh", "replace", self.here, "lladdr", _NOBODY, "nud", "permanent", "dev", self.far, at=self.namespace)

    def flow_from_there(self) -> None:
        """Pass packets to the other side again."""
        _ip("neigh", "del", self.here, "dev", self.far, at=self.namespace)


#: The network's bits of an address.
_BITS = 29


@contextlib.contextmanager
def link() -> Iterator[Link]:
    """A link that is up until the end."""
    base = os.getpid() % 8192 * 8  # eight addresses for each process
    near, far, elsewhere = (f"10.213.{base >> 8}.{(base & 255) + host}" for host in (1, 2, 3))
    name = f"schf{os.getpid()}"
    made = Link(name, f"{name}a", f"{name}b", near, far, elsewhere)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", made.near, "type", "veth", "peer", "name", made.far, "netns", name)
        _ip("addr", "add", f"{made.here}/{_BITS}", "dev", made.near)
        _ip("link", "set", made.near, "up")
        _ip("link", "set", "lo", "up", at=name)
        _ip("addr", "add", f"{made.there}/{_BITS}", "dev", made.far, at=name)
        made.mend()
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", made.near)
        _ip("netns", "del", name)


def possible() -> None:
    """``Skipped`` if such a network can't be made."""
    try:
        with link():
            pass
    except FileNotFoundError:
        raise Skipped("there is no ip (iproute2)") from None
    except subprocess.CalledProcessError as error:
        raise Skipped(f"no network namespace can be made: {error.stderr.decode().strip()}") from None


def _ip(*words: str, at: str | None = None) -> None:
    command: Sequence[str] = ["ip", *(["-n", at] if at else []), *words]
    subprocess.run(command, check=True, capture_output=True)
