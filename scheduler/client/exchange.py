"""Requests and answers as values, and the steps of which operations consist. No socket is used here.

Theory of operation. Every operation of the client is a generator, a *script*. It yields the steps that need the world
outside, and is sent the result of each:

- ``Open``: send a request; the result is a ``Head``, or ``NoAnswer``. One request
  of a script is open at a time: the next ``Open`` abandons the previous one.
- ``Read``: read the next bytes of the body; ``b""`` at its proper end, else ``NoAnswer``.
- ``Pause``: wait for some seconds.
- ``Deliver``: hand an item to the caller, in scripts that are iterators.

``blocking`` carries the steps out with urllib3, and ``twisted`` with treq. The scripts alone decide about requests,
repetitions and resumptions.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from scheduler.client.errors import ClientError

T = TypeVar("T")
Item = TypeVar("Item")


@frozen
class Request:
    """A request, and how it may be treated."""

    method: str
    #: The path below the base URL, percent-encoded: ``/v1/jobs``.
    path: str
    query: tuple[tuple[str, str], ...] = ()
    #: A value for JSON; ``None``: no body.
    body: Any = None
    headers: Mapping[str, str] = field(factory=dict)
    #: Whether the request may be sent again although it may have been carried out.
    repeatable: bool = True
    #: Whether the request starts a job. If so, an error says whether a job was started.
    submits: bool = False
    #: Statuses beyond 2xx that are answers, not problems.
    expected: frozenset[int] = frozenset()
    #: Seconds without a byte after which the answer counts as lost; ``None``: the client's ``timeout``.
    silence: float | None = None


@frozen
class Head:
    """The beginning of an answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Answer(Head):
    """A whole answer."""

    body: bytes = b""

    @property
    def document(self) -> Mapping[str, Any]:
        """The JSON object in the body; ``{}`` if there is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_problem(self) -> bool:
        """Whether a scheduler wrote the answer to refuse a request, and not a proxy."""
        return str(self.document.get("type")).startswith("/problems/")

    @property
    def is_cut(self) -> bool:
        """Whether the body should be JSON but is not: a proxy may end a cut body properly."""
        if not self.headers.get("content-type", "").startswith("application/json"):
            return False
        try:
            json.loads(self.body)
        except (ValueError, RecursionError):
            return True
        return False

    @property
    def retry_after(self) -> float | None:
        """Seconds in ``Retry-After``; ``None`` without it, or for a date, which the scheduler never sends."""
        text = self.headers.get("retry-after", "").strip()
        return float(text) if text.isascii() and text.isdigit() else None

    def json(self) -> Any:
        """The JSON in the body. Raises ``ClientError`` if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ClientError(f"the answer is not JSON: is there a scheduler? It begins {self.body[:80]!r}") from None


class Loss(enum.Enum):
    """The ways in which an answer can be missing."""

    #: No connection was made, so nothing was sent.
    UNSENT = "unsent"
    #: TLS failed in a way that repeats itself; nothing was sent.
    UNTRUSTED = "untrusted"
    #: The client was closed; nothing was sent.
    CLOSED = "closed"
    #: The program there speaks another protocol: it is no scheduler, and started nothing.
    FOREIGN = "foreign"
    #: The answer is not HTTP, and may come from something between this client and a scheduler.
    GARBLED = "garbled"
    #: The connection broke, or was silent for too long, after something may have been sent.
    LOST = "lost"


@frozen
class NoAnswer:
    """No answer came, or only a part of it."""

    loss: Loss
    #: The reason as a clause: ``connection refused``.
    why: str


@frozen
class Open:
    """Step: send this request. The request that is open is abandoned."""

    request: Request


@frozen
class Read:
    """Step: read some bytes of the body."""


@frozen
class Pause:
    """Step: wait for some seconds."""

    seconds: float
    #: The failure before the next attempt, as a clause; ``""`` if there was none.
    why: str = ""


@frozen
class Deliver(Generic[Item]):
    """Step: hand an item to the caller."""

    item: Item


def loss_of(greeting: bytes) -> Loss:
    """Whether an answer that is not HTTP is ``FOREIGN`` or ``GARBLED``, judged by its first bytes."""
    is_http2 = greeting[3:5] == b"\4\0" and greeting[:1] == b"\0"  # a SETTINGS frame, as of gRPC
    return Loss.FOREIGN if is_http2 or greeting.startswith((b"SSH-", b"\x15\3")) else Loss.GARBLED


class Trouble:
    """Tells the client's caller about failures of requests that are repeated, and about their end."""

    def __init__(self, told: Callable[[str | None], object] | None) -> None:
        """``told`` is the client's ``on_trouble``."""
        self._told = told
        self._troubled = False

    def before(self, pause: Pause) -> None:
        """Note that a request will be tried again after this pause, if the pause has a reason."""
        if pause.why:
            self._tell(pause.why)

    def after(self, head: Head | NoAnswer) -> None:
        if isinstance(head, Head) and head.status < 300:
            self._tell(None)

    def _tell(self, why: str | None) -> None:
        if self._told is not None and (why is not None or self._troubled):
            self._told(why)
        self._troubled = why is not None


Step = Open | Read | Pause

#: An operation with a result.
Script = Generator[Step, Any, T]

#: An operation that delivers items.
Source = Generator[Step | Deliver[Item], Any, None]


def exchange(request: Request) -> Script[Answer | NoAnswer]:
    """Send a request once, and read the whole answer."""
    head = yield Open(request)
    if isinstance(head, NoAnswer):
        return head
    return (yield from whole(head))


def whole(head: Head) -> Script[Answer | NoAnswer]:
    """Read the rest of an answer whose head was received."""
    pieces: list[bytes] = []
    while True:
        data = yield Read()
        if isinstance(data, NoAnswer):
            return data
        if not data:
            return Answer(head.status, head.headers, b"".join(pieces))
        pieces.append(data)
