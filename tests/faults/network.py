"""A network of the harness's own: a namespace joined to this one by a pair of virtual interfaces."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

from attrs import define

from tests.faults.run import Skipped

#: Nobody's hardware address: frames to it arrive, and nobody takes them.
_NOBODY = "02:00:00:00:00:99"


@define
class Link:
    """Between this namespace, ``here``, and another, ``there``."""

    namespace: str
    #: Interfaces.
    near: str
    far: str
    here: str
    there: str
    #: The next ``there``.
    elsewhere: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command that shall run there."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Nothing passes, either way, and nobody is told."""
        _ip("link", "set", self.far, "down", at=self.namespace)

    def mend(self) -> None:
        """All passes again."""
        _ip("link", "set", self.far, "up", at=self.namespace)

    def move(self) -> None:
        """The other side has ``elsewhere`` for its address, and is nowhere else any more; then the two are swapped."""
        _ip("addr", "del", f"{self.there}/{_BITS}", "dev", self.far, at=self.namespace)
        _ip("addr", "add", f"{self.elsewhere}/{_BITS}", "dev", self.far, at=self.namespace)
        self.there, self.elsewhere = self.elsewhere, self.there

    def stall_from_there(self) -> None:
        """What is sent there gets nowhere; what is sent here arrives."""
        _ip("neigh", "replace", self.here, "lladdr", _NOBODY, "nud", "permanent", "dev", self.far, at=self.namespace)

    def flow_from_there(self) -> None:
        """It does again."""
        _ip("neigh", "del", self.here, "dev", self.far, at=self.namespace)


#: Of an address, those that are of the network.
_BITS = 29


@contextlib.contextmanager
def link() -> Iterator[Link]:
    """One that is up; gone at the end."""
    base = os.getpid() % 8192 * 8  # eight addresses each
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
    """``Skipped`` where no such network can be made."""
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
