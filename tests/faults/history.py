"""The history of a run: what clients asked, were told, and when; one JSON object a line.

Written by many threads while the daemons die, read by the checker. Times are
seconds by the harness's monotonic clock. An event is written when its outcome
is known, so ``began`` of one that took long may be before the lines above it.
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

#: Of a job as the API shows it, what the checker judges.
SEEN = (
    *("state", "reason", "exit_code", "signal", "stop_requested_at", "worker_name"),
    *("stdout_bytes", "stderr_bytes", "output_error", "background_ended"),
    *("finished_at", "usage", "remove_requested_at", "leftover", "retry_of", "retried_by"),
)


@frozen(kw_only=True)
class Event:
    """One operation and its outcome. What does not apply is ``None``, and not in the file.

    ``op`` is one of

    - ``start``: ``ticket`` (the client's own name for what it wants run, once), ``worker`` if one was named, ``key``,
      ``seed``, ``lines``, ``filtered`` and ``background`` (how many processes the job leaves behind), ``unattended``
      (its ``unattended_timeout``, seconds), ``timeout`` in seconds, ``output_limit`` and ``stdin`` in bytes,
      ``attempts`` (how often it may be run again by ``retry``; not said where that is not known), ``asked`` (what of
      one answer with all), ``status``, ``problem`` (its type) and ``job`` as answered; without ``status`` there was no
      answer
    - ``see``: ``job`` was looked at, with ``status`` 200 and ``seen``, or 404; ``via`` says how. ``seen`` has
      ``ended``, too: ``finished_at`` by the harness's clock, as far as the wall clocks agree
    - ``stop``, ``remove``: ``job``, ``status``; without ``status`` there was no answer
    - ``signal``: SIGUSR1 was sent to ``job``; ``status`` as above
    - ``answer``: as ``see``, of a job that was waited for: ``via`` ``post`` or ``get``, ``status``, ``problem``,
      ``asked`` (``wait`` in seconds, ``output`` in bytes, ``check``), and by stream in ``tails`` the ``offset``,
      ``length``, ``sha256`` and ``cut`` of what it had of the output, or ``error``: why it had none
    - ``output``: ``job``'s output was asked for, of that ``stream`` from ``begin`` on (with an ``offset``: as events,
      stderr from there on), with that ``status`` and ``problem``
    - ``odd``: an answer that nobody should ever get, 500 or no JSON: ``what`` was asked, and ``error`` says what came
    - ``attend``: ``reader`` followed ``job`` from ``began`` (it was answered) to ``t``, ``via`` ``raw`` or ``events``;
      ``first`` is the name of the first event, ``states`` those of its ``job`` events, and of ``end``, in order
    - ``read``: ``reader``, which had asked for ``job``'s ``stream`` (stdout, if not said) from ``begin`` on, got
      ``length`` bytes with that ``sha256`` at ``offset``; with ``end`` it was told that this is all (``via`` ``raw`` or
      ``events``), with ``error`` it gave up
    - ``fault``, ``heal``: ``what`` was done; ``jobs`` are those which the fault may have destroyed, ``outputs`` those
      whose output it may have destroyed
      Of a database that is ``set_back`` the jobs ``unknown`` are known to nobody any more, and of those ``adopted`` it
      is known what their workers know
    - ``keeps``: ``worker`` keeps the output of ended jobs for so many ``seconds`` only, and not beyond the end
    - ``agree``: all sides agreed after ``seconds``, or did not within ``limit`` and have ``differences``
    - ``last``: as ``see``, when everything was over
    """

    op: str
    began: float
    t: float
    #: Line in the file, from 1; set by the reader.
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
    """Appends to the file; from any thread."""

    path: Path
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def add(self, op: str, began: float | None = None, **fields: Any) -> float:
        """Write an event that ends now, and began then (now, if not said); returns now."""
        now = time.monotonic()
        event = Event(op=op, began=now if began is None else began, t=now, **fields)
        data = asdict(event, filter=lambda attribute, value: attribute.name != "number" and value not in (None, ()))
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")
        return now

    def see(
        self, job: Mapping[str, Any], began: float, via: str, op: str = "see", status: int = 200, **fields: Any
    ) -> None:
        """Write down a job as it was shown."""
        seen = {name: job[name] for name in SEEN}
        if job["finished_at"]:
            seen["ended"] = time.monotonic() - time.time() + datetime.fromisoformat(job["finished_at"]).timestamp()
        self.add(op, began, job=job["id"], status=status, seen=seen, via=via, **fields)


def read(path: Path) -> list[Event]:
    """All events, in the order they were written."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Event(number=number, **json.loads(line)) for number, line in enumerate(lines, 1)]
