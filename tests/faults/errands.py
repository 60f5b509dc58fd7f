"""Further requests of clients about jobs: signals, waits with an answer, removals.

Theory of operation. An errand is a generator that yields the seconds until it continues. A few threads carry all of
them out. SIGUSR1 does not queue: if two are pending, the second is lost. So the next signal is sent when the job has
recorded the previous one. After a signal without an answer none is sent, because that signal may arrive at any time.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import threading
import time
from collections.abc import Generator, Mapping
from itertools import count
from random import Random
from typing import Any

from attrs import field, frozen

from tests.faults import evidence
from tests.faults.client import CUT, Api, Document, NotJson, problem_of
from tests.faults.history import History
from tests.faults.ticket import Asked, Desk, Ticket

Errand = Generator[float, None, None]

#: Seconds after which an errand's request is given up.
_TIMEOUT = 20.0

#: Signals to one job, and seconds within which it begins, or has counted one.
_SIGNALS = 3
_COUNTED = 5.0

#: The most requests for one removal.
_REMOVALS = 60

#: Answers that leave open whether the signal was sent.
_UNKNOWN = frozenset({None, 504})


@frozen
class Errands:
    """The errands of one load."""

    api: Api
    history: History
    desk: Desk
    _waiting: list[tuple[float, int, Errand]] = field(factory=list, init=False)
    _numbers: count[int] = field(factory=count, init=False)
    _busy: list[Errand] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)

    def take_on(self, random: Random, ticket: Ticket, job: str) -> None:
        """Accept all errands of the ticket, whose job was acknowledged."""
        end = ticket.seconds if ticket.unattended is None or ticket.attended else ticket.unattended
        if ticket.signalled:
            self._add(0.0, self._send_signals(random, ticket, job))
        if ticket.waited:
            self._add(random.uniform(0.0, ticket.seconds), self._wait_for(random, job))
        if ticket.removed:
            self._add(random.uniform(0.5, 1.5) * end + 0.5, self._remove(random, ticket, job))

    def run(self, _: Random) -> None:
        """Carry out due errands until ``end``; run by a thread."""
        while not self._over.wait(0.02):
            with self._lock:
                if not self._waiting or self._waiting[0][0] > time.monotonic():
                    continue
                _, _, errand = heapq.heappop(self._waiting)
                self._busy.append(errand)
            try:
                pause = next(errand, None)
            finally:
                self._busy.remove(errand)
            if pause is not None:
                self._add(pause, errand)

    def end(self, patience: float) -> None:
        """Begin nothing more. Returns when all requests are answered, or after so many seconds."""
        self._over.set()
        until = time.monotonic() + patience
        while self._busy and time.monotonic() < until:
            time.sleep(0.01)

    def _add(self, pause: float, errand: Errand) -> None:
        with self._lock:
            heapq.heappush(self._waiting, (time.monotonic() + pause, next(self._numbers), errand))

    def _call(self, method: str, path: str, body: Document = None) -> tuple[int | None, Document]:
        try:
            return self.api.call(method, path, body, timeout=_TIMEOUT)
        except CUT:
            return None, None

    # signals

    def _send_signals(self, random: Random, ticket: Ticket, job: str) -> Errand:
        plain = not ticket.shape.filtered and not ticket.shape.background
        arrived = 0
        for _ in range(_SIGNALS):
            until = time.monotonic() + _COUNTED
            while (run := self._run_of(ticket, job)) is None or run.signals < arrived:
                if time.monotonic() > until:
                    return
                yield 0.05
            to = random.choice(("main", "tree")) if plain else "main"
            began = time.monotonic()
            status, _ = self._call("POST", f"/v1/jobs/{job}/signal", {"signal": "SIGUSR1", "to": to})
            self.history.add("signal", began, job=job, status=status)
            if status in _UNKNOWN:
                return
            arrived += status == 200
            yield random.uniform(0.05, 0.3)

    def _run_of(self, ticket: Ticket, job: str) -> evidence.Run | None:
        """The job by its own account, once it can receive signals."""
        return next((run for run in evidence.runs_of(self.desk.evidence / ticket.name) if run.job == job), None)

    # answers

    def _wait_for(self, random: Random, job: str) -> Errand:
        for _ in range(3):
            asked = Asked.draw(random)
            began = time.monotonic()
            status, document = self._call("GET", f"/v1/jobs/{job}?{asked.query}")
            if status == 404:
                self.history.add("see", began, job=job, status=404, via="get")
            elif status is not None:
                answered(self.history, began, "get", asked, status, document, job)
            if status != 504:
                return
            yield 0.1

    # removals

    def _remove(self, random: Random, ticket: Ticket, job: str) -> Errand:
        for _ in range(_REMOVALS):
            began = time.monotonic()
            status, _ = self._call("DELETE", f"/v1/jobs/{job}")
            self.history.add("remove", began, job=job, status=status)
            if status in (204, 404):
                break
            if status is None and random.random() < 0.3:
                return  # the answer is not recorded, so nothing depends on it
            yield random.uniform(0.2, 1.0)
        for pause in (random.uniform(0.5, 3.0), 1.0):
            self.look_for_removed(job)
            if ticket.key is not None:
                self._replay(ticket)
            yield pause

    def look_for_removed(self, job: str) -> None:
        """Try to see anything of a removed job."""
        for path, op in ((f"/v1/jobs/{job}", "see"), (f"/v1/jobs/{job}/output", "output")):
            began = time.monotonic()
            try:
                status, document = self.api.call("GET", path, timeout=_TIMEOUT)
            except NotJson:  # output is no JSON
                status, document = 200, None
            except CUT:
                continue
            if op == "see" and status == 200 and document is not None:
                self.history.see(document, began, "get")
            elif op == "output" or status == 404:
                self.history.add(op, began, job=job, status=status, via="get")

    def _replay(self, ticket: Ticket) -> None:
        """Repeat the request of a job that was removed."""
        began = time.monotonic()
        try:
            status, document = self.api.call("POST", ticket.path, ticket.body, ticket.headers, timeout=_TIMEOUT)
        except CUT:
            return
        job = document.get("id") or document.get("job_id")
        problem = problem_of(document)
        self.history.add("start", began, status=status, problem=problem, job=job, **ticket.fields)


def answered(
    history: History, began: float, via: str, asked: Asked, status: int, document: Document, job: str | None
) -> None:
    """Record the answer to a request that waited for the end of a job, if it contains one."""
    shown = job_in(document)
    fields = {"problem": problem_of(document), "asked": asked.fields}
    if shown is None:
        history.add("answer", began, job=job, status=status, via=via, **fields)
    else:
        history.see(shown, began, via, "answer", status, tails=tails(shown), **fields)


def job_in(document: Document) -> Document:
    """The job in an answer or in a problem; ``None`` if there is none."""
    if not isinstance(document, dict):
        return None
    return document if "stdout_bytes" in document else document.get("job")


def tails(job: Document) -> Mapping[str, Mapping[str, Any]]:
    """The output in an answer, by stream."""
    found: dict[str, Mapping[str, Any]] = {}
    for stream in ("stdout", "stderr"):
        if f"{stream}_cut" not in job:
            continue
        text, coded = job.get(stream), job.get(f"{stream}_base64")
        if text is None and coded is None:
            found[stream] = {"error": job["output_unavailable"]}
            continue
        data = base64.b64decode(coded) if text is None else text.encode()
        digest = hashlib.sha256(data).hexdigest()
        offset, cut = job[f"{stream}_offset"], job[f"{stream}_cut"]
        found[stream] = {"offset": offset, "length": len(data), "sha256": digest, "cut": cut}
    return found
