"""A world for scripts: it answers each request from a list, and passes and records pauses at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen

from scheduler.client.exchange import Deliver, Head, Loss, NoAnswer, Open, Pause, Read, Request
from scheduler.client.operations import Operations

PATIENCE = 60.0

TIMEOUT = 30.0

REFUSED = NoAnswer(Loss.UNSENT, "connection refused")
UNTRUSTED = NoAnswer(Loss.UNTRUSTED, "the certificate is not trusted")
CUT = NoAnswer(Loss.LOST, "connection reset by peer")


@frozen
class Reply:
    """An answer: its pieces, and its end; ``b""`` is a proper end."""

    head: Head
    pieces: Sequence[bytes] = ()
    end: bytes | NoAnswer = b""
    #: Called when the answer is opened, for example to let time pass.
    meanwhile: Callable[[], object] = field(default=lambda: None)


def answer(document: Any = None, status: int = 200, end: bytes | NoAnswer = b"", **headers: str) -> Reply:
    """A complete JSON answer; ``_`` in a header's name stands for ``-``."""
    pieces = [] if document is None else [json.dumps(document).encode()]
    return Reply(Head(status, {name.replace("_", "-"): value for name, value in headers.items()}), pieces, end)


def problem(status: int, kind: str = "", members: dict[str, Any] | None = None, **headers: str) -> Reply:
    """A problem document; ``kind`` is the slug of its type."""
    kind = f"/problems/{kind}" if kind else "about:blank"
    return answer({"type": kind, "detail": f"detail of {status}", **(members or {})}, status, **headers)


def job(job_id: str = "j1", state: str = "running", **more: Any) -> dict[str, Any]:
    """A job's JSON."""
    return {"id": job_id, "state": state, **more}


class World:
    """Gives each request its listed answer, and the last one for ever. Time passes in pauses and bodies."""

    def __init__(self, *replies: Reply | NoAnswer) -> None:
        self._replies = list(replies)
        self._body: list[bytes | NoAnswer] = []
        self.requests: list[Request] = []
        self.pauses: list[float] = []
        self.delivered: list[Any] = []
        self.now = 1000.0
        #: Seconds for each piece of a body.
        self.seconds = 0.0
        self.operations = Operations(lambda: self.now, TIMEOUT, PATIENCE, jitter=lambda: 1.0, new_key=self._new_key)
        self._keys = 0

    def met(self) -> World:
        """This world, once the client has had an answer."""
        self.operations.repeater.reached = True
        return self

    def run(self, script: Any) -> Any:
        """The result of an operation; ``delivered`` has its items."""
        result = None
        try:
            while True:
                step = script.send(result)
                result = self._perform(step)
        except StopIteration as end:
            return end.value

    def items(self, source: Any) -> list[Any]:
        """All items of a source."""
        self.run(source)
        return self.delivered

    def sent(self) -> list[str]:
        """Each request in short form."""
        return [f"{request.method} {request.path}" for request in self.requests]

    def _perform(self, step: Any) -> Any:
        if isinstance(step, Open):
            self.requests.append(step.request)
            reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
            if isinstance(reply, NoAnswer):
                return reply
            reply.meanwhile()
            self._body = [*reply.pieces, reply.end]
            return reply.head
        if isinstance(step, Read):
            self.now += self.seconds
            return self._body.pop(0)
        if isinstance(step, Deliver):
            self.delivered.append(step.item)
            return None
        assert isinstance(step, Pause)
        assert step.seconds > 0
        self.pauses.append(step.seconds)
        self.now += step.seconds
        return None

    def _new_key(self) -> str:
        self._keys += 1
        return f"key {self._keys}"
