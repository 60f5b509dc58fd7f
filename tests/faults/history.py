"""The history of a run: requests of clients, their answers, and the times; one JSON object per line.

Many threads write it while the daemons die, and the checker reads it. Times are seconds by the harness's monotonic
clock. An event is written when its outcome is known. So ``began`` of a long one may be earlier than the lines above it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

#: The fields of a shown job that the checker judges.
SEEN = (
    *("state", "reason", "exit_code", "signal", "stop_requested_at", "worker_name"),
    *("stdout_bytes", "stderr_bytes", "output_error", "background_ended"),
    *("finished_at", "usage", "remove_requested_at", "leftover", "retry_of", "retried_by"),
)


@frozen(kw_only=True)
class Event:
    """An operation and its outcome. A field that does not apply is ``None``, and not in the file.

    ``op`` is one of

    - ``start``: ``ticket`` (the client's own name for a job that is to run once), ``worker`` if one was named, ``key``,
      ``seed``, ``lines``, ``filtered`` and ``background`` (the number of processes that the job leaves behind),
      ``unattended`` (its ``unattended_timeout``, seconds), ``timeout`` in seconds, ``output_limit`` and ``stdin`` in
      bytes, ``attempts`` (the most runs by ``retry``; absent if not known), ``asked`` (the requested parts of one
      answer), ``status``, ``problem`` (its type) and ``job`` as answered; without ``status`` there was no answer
    - ``see``: ``job`` was observed, with ``status`` 200 and ``seen``, or 404; ``via`` says how. ``seen`` also has
      ``ended``: ``finished_at`` by the harness's clock, as far as the wall clocks agree
    - ``stop``, ``remove``: ``job``, ``status``; without ``status`` there was no answer
    - ``signal``: SIGUSR1 was sent to ``job``; ``status`` as above
    - ``answer``: like ``see``, for a job that was waited for: ``via`` ``post`` or ``get``, ``status``, ``problem``,
      ``asked`` (``wait`` in seconds, ``output`` in bytes, ``check``), and by stream in ``tails`` the ``offset``,
      ``length``, ``sha256`` and ``cut`` of the output in it, or ``error``: why it had none
    - ``output``: the output of ``job`` was requested, from that ``stream`` and ``begin`` on (with an ``offset``: as
      events, stderr from there on), with that ``status`` and ``problem``
    - ``odd``: an answer that no client should ever get, 500 or no JSON: ``what`` was requested, ``error`` is the answer
    - ``attend``: ``reader`` followed ``job`` from ``began`` (it was answered) to ``t``, ``via`` ``raw`` or ``events``;
      ``first`` is the name of the first event, ``states`` those of its ``job`` events, and of ``end``, in order
    - ``read``: ``reader``, which had requested ``job``'s ``stream`` (default stdout) from ``begin`` on, got ``length``
      bytes with that ``sha256`` at ``offset``; with ``end`` it was told that this is all (``via`` ``raw`` or
      ``events``), with ``error`` it gave up
    - ``fault``, ``heal``: ``what`` was done; the fault may have destroyed ``jobs``, and the output of ``outputs``.
      If the database is ``set_back``, the jobs ``unknown`` are known to no side any more, and the jobs ``adopted`` only
      to their workers
    - ``keeps``: ``worker`` keeps the output of ended jobs for so many ``seconds`` only, and not beyond the end
    - ``agree``: all sides agreed after ``seconds``, or did not within ``limit`` and have ``differences``
    - ``last``: like ``see``, at the end of the run
    """

    op: str
    began: float
    t: float
    #: The line in the file, from 1; set by ``read``.
    number: int = 0
    job: str | None = None
    ticket: str | None = None
    worker: str | None = None
    key: str | None = None
    seed: int | None = None
    lines: int | None = None
    filtered: bool | None = None
    background: int | None = None
    unattended: float | None = None
    timeout: float | None = None
    output_limit: int | None = None
    stdin: int | None = None
    attempts: int | None = None
    asked: Mapping[str, Any] | None = None
    status: int | None = None
    problem: str | None = None
    tails: Mapping[str, Mapping[str, Any]] | None = None
    first: str | None = None
    states: Sequence[str] = ()
    seen: Mapping[str, Any] | None = None
    via: str | None = None
    reader: str | None = None
    stream: str | None = None
    begin: int | None = None
    offset: int | None = None
    length: int | None = None
    sha256: str | None = None
    end: bool | None = None
    what: str | None = None
    jobs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    set_back: bool | None = None
    unknown: Sequence[str] = ()
    adopted: Sequence[str] = ()
    seconds: float | None = None
    limit: float | None = None
    differences: Sequence[str] = ()
    error: str | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether a client was told that its job will run."""
        return self.op == "start" and self.status in (201, 202, 424) and self.job is not None


@frozen
class History:
    """Appends to the file, from any thread."""

    path: Path
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def add(self, op: str, began: float | None = None, **fields: Any) -> float:
        """Record an event that ends now, and began at ``began`` (default: now); returns the time."""
        now = time.monotonic()
        event = Event(op=op, began=now if began is None else began, t=now, **fields)
        data = asdict(event, filter=lambda attribute, value: attribute.name != "number" and value not in (None, ()))
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")
        return now

    def see(
        self, job: Mapping[str, Any], began: float, via: str, op: str = "see", status: int = 200, **fields: Any
    ) -> None:
        """Record a job as it was shown."""
        seen = {name: job[name] for name in SEEN}
        if job["finished_at"]:
            seen["ended"] = time.monotonic() - time.time() + datetime.fromisoformat(job["finished_at"]).timestamp()
        self.add(op, began, job=job["id"], status=status, seen=seen, via=via, **fields)


def read(path: Path) -> list[Event]:
    """All events, in the order in which they were written."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Event(number=number, **json.loads(line)) for number, line in enumerate(lines, 1)]
