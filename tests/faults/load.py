"""Clients that start, watch, stop, follow and remove jobs while the daemons die, and record all answers.

Theory of operation. A *ticket* is a job that a client wants to run once. A ticket with an idempotency key is requested
again, with the same key, until an answer settles it. A ticket without a key is requested once. Its job writes its
evidence into the file of that name. So a ticket with two jobs is noticed, even if the second was never answered. Some
jobs are then followed to their end by a reader that resumes after cuts (``followers``), some are stopped, and all are
observed. ``errands`` does the rest.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, evolve, field, frozen

from tests.faults.client import CUT, Api, problem_of
from tests.faults.errands import Errands, answered, job_in
from tests.faults.followers import Answer, Followers, Reading
from tests.faults.history import History
from tests.faults.mix import USUAL, Mix
from tests.faults.ticket import Desk, Ticket

#: Statuses after which the same key is tried again.
_AGAIN = frozenset({409, 429, 502, 503, 504})

#: Seconds after which the client of a key gives up.
_KEY_PATIENCE = 45.0

#: The share of readers that do not begin with the first byte, and the offset below which they begin.
_ELSEWHERE = 0.2
_BEGIN_MAX = 200

#: Threads that carry out errands, and seconds that an errand may take to be answered.
_ERRAND_THREADS = 2
_ERRAND_PATIENCE = 25.0


@frozen
class _Job:
    id: str
    #: The time of its stop, unless it ends before.
    stop_at: float | None = None


@define(slots=False)
class Load:
    """The clients. ``resume`` and ``pause`` begin and end the starting of jobs; the rest continues until ``close``."""

    api: Api
    history: History
    folder: Path
    random: Random
    mix: Mix = USUAL
    #: Jobs that were acknowledged lately.
    recent: deque[_Job] = field(factory=lambda: deque(maxlen=40), init=False)
    _starting: threading.Event = field(factory=threading.Event, init=False)
    _closed: threading.Event = field(factory=threading.Event, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _in_flight: list[str] = field(factory=list, init=False)
    _to_follow: queue.Queue[tuple[str, Answer | None] | None] = field(factory=queue.Queue, init=False)
    _threads: list[threading.Thread] = field(factory=list, init=False)
    _errors: list[BaseException] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.desk = Desk(self.folder, self.mix)
        self.errands = Errands(self.api, self.history, self.desk)
        self.followers = Followers(self.api, self.history)

    @property
    def evidence(self) -> Path:
        """The folder in which the jobs write."""
        return self.desk.evidence

    @property
    def without_output(self) -> set[str]:
        """Jobs whose output a fault has destroyed, so that no reader can reach its end."""
        return self.followers.without_output

    def start(self) -> None:
        """Start the threads. No job is started before ``resume``."""
        self.desk.make_folders()
        for number in range(self.mix.starters):
            self._thread(self._start_jobs, number)
        for _ in range(self.mix.watchers):
            self._thread(self._watch)
        for number in range(self.mix.readers):
            self._thread(self._read, number)
        for _ in range(_ERRAND_THREADS):
            self._thread(self.errands.run)

    def _thread(self, work: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            random = Random(self.random.random())

        def run() -> None:
            try:
                work(random, *arguments)
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def resume(self) -> None:
        """Start jobs."""
        self._starting.set()

    def hold(self) -> None:
        """Stop starting jobs."""
        self._starting.clear()

    def pause(self) -> None:
        """Stop starting jobs. Returns when every start is answered or given up."""
        self.hold()
        deadline = time.monotonic() + 2 * _KEY_PATIENCE
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(0.01)

    def settle(self) -> None:
        """Stop all requests except observing and following. Returns when all others are answered or given up."""
        self.pause()
        self.errands.end(_ERRAND_PATIENCE)

    def give_up(self) -> None:
        """Do nothing new; the threads end when they can."""
        self.hold()
        self.errands.end(0.0)
        self._closed.set()
        for _ in self._threads:
            self._to_follow.put(None)

    def close(self) -> None:
        """End all threads, after the readers have reached the end of their output."""
        self.settle()
        self.give_up()
        for thread in self._threads:
            thread.join(150)
        if self._errors:
            raise self._errors[0]

    # starts

    def _start_jobs(self, random: Random, number: int) -> None:
        count = 0
        while not self._closed.is_set():
            if not self._starting.wait(0.1):
                continue
            count += 1
            began = time.monotonic()
            self._in_flight.append(name := f"t{number}-{count}")
            try:
                if self._starting.is_set():
                    self.ticket(random, name)
            finally:
                self._in_flight.remove(name)
            pause = random.uniform(0.5, 1.5) * self.mix.starters / self.mix.rate
            self._closed.wait(max(began + pause - time.monotonic(), pause / 10))

    def ticket(
        self,
        random: Random,
        name: str,
        seconds: float | None = None,
        worker: str | None = None,
        waits: bool | None = None,
    ) -> str | None:
        """Request a job, once or, with a key, until it is settled. Returns its id if it was answered.

        A value of ``None`` is drawn from the mix. ``waits``: until the worker can be reached. A job with given
        ``seconds`` belongs to the caller: no other client stops, signals or removes it.
        """
        ticket = self.desk.draw(random, name, seconds, worker, waits, own=seconds is not None)
        stop_at = time.monotonic() + random.uniform(0.0, ticket.seconds) if ticket.stopped else None
        deadline = time.monotonic() + _KEY_PATIENCE
        while True:
            status, job, output = self._ask(ticket)
            if job is not None:
                self.recent.append(_Job(job, stop_at))
                if ticket.attended:  # by a thread of its own, which is not busy with another job
                    self._thread(self._attend, job, ticket.name, output)
                elif ticket.followed or output is not None:
                    self._to_follow.put((job, output))
                self.errands.take_on(random, ticket, job)
                return job
            if ticket.key is None or not (status is None or status in _AGAIN) or time.monotonic() > deadline:
                return None
            self._closed.wait(random.uniform(0.1, 0.5))

    def _ask(self, ticket: Ticket) -> tuple[int | None, str | None, Answer | None]:
        """Make one request. Its status and the job's id, if answered, and the output, if it follows."""
        began = time.monotonic()
        status, answer, error, output = None, None, None, None
        try:
            if ticket.streamed:
                status, answer, items = self.api.run(ticket.body, ticket.headers, timeout=20)
                output = Answer(began, time.monotonic(), items) if status == 201 else None
            else:
                query = f"?{ticket.asked.query}" if ticket.asked else ""
                status, answer = self.api.call("POST", ticket.path + query, ticket.body, ticket.headers, timeout=20)
        except CUT as cut:
            error = repr(cut)
        if status is not None and status >= 400:
            error = answer.get("detail")
        job = (answer.get("id") or answer.get("job_id")) if isinstance(answer, dict) else None
        problem = problem_of(answer)
        self.history.add("start", began, status=status, problem=problem, job=job, error=error, **ticket.fields)
        if status is not None and ticket.asked is not None and job is not None:
            answered(self.history, began, "post", ticket.asked, status, answer, job)
        elif (shown := job_in(answer)) is not None:
            self.history.see(shown, began, "start")
        return status, job, output

    # looks and stops

    def _watch(self, random: Random) -> None:
        while not self._closed.wait(random.uniform(0.5, 1.5) / self.mix.looks):
            for job in list(self.recent):
                if job.stop_at is not None and job.stop_at < time.monotonic():
                    with contextlib.suppress(ValueError):  # newer ones took its place meanwhile
                        self.recent.remove(job)
                    self.stop(job.id)
            if not self.recent:
                continue
            if random.random() < 0.1:
                self._list()
            else:
                self.look(random.choice(list(self.recent)).id)

    def look(self, job: str, op: str = "see") -> None:
        """``GET`` one job."""
        began = time.monotonic()
        try:
            status, document = self.api.call("GET", f"/v1/jobs/{job}", timeout=15)
        except CUT:
            return
        if status == 200:
            self.history.see(document, began, "get", op)
        elif status == 404:
            self.history.add(op, began, job=job, status=404, via="get")

    def _list(self) -> None:
        began = time.monotonic()
        page = self.api.get("/v1/jobs?limit=50", timeout=15)
        for job in page["jobs"] if page else ():
            self.history.see(job, began, "list")

    def stop(self, job: str) -> None:
        """Request the stop of a job. The request counts, whatever its answer."""
        began = time.monotonic()
        status, document = None, None
        with suppress(*CUT):
            status, document = self.api.call("POST", f"/v1/jobs/{job}/stop", timeout=20)
        self.history.add("stop", began, job=job, status=status)
        if status in (200, 202):
            self.history.see(document, began, "stop")

    # followers

    def _read(self, random: Random, number: int) -> None:
        count = 0
        while (following := self._to_follow.get()) is not None:
            count += 1
            job, output = following
            reading = Reading(random.random() < 0.3, "stderr" if random.random() < 0.3 else "stdout")
            if random.random() < _ELSEWHERE:
                reading = evolve(reading, begin=random.randrange(_BEGIN_MAX), error_begin=random.randrange(_BEGIN_MAX))
            self.followers.follow(job, f"r{number}-{count}", reading, answer=output)

    def _attend(self, random: Random, job: str, ticket: str, output: Answer | None) -> None:
        self.followers.follow(job, f"a{ticket}", Reading(random.random() < 0.5), answer=output)
