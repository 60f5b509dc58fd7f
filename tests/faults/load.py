"""Clients that start, watch, stop and follow jobs while the daemons die, and write down what they are told.

Theory of operation. What a client wants run, once, is a *ticket*. A ticket with
an idempotency key is asked for again, with the same key, until there is an
answer that settles it; one without a key is asked for once. The job of a ticket
writes its evidence into the file of that name, so a ticket that came to two jobs
shows, whether the second was ever answered or not. Some jobs are then followed
to their end by a reader that resumes where it was cut, some are stopped, all are
looked at.
"""

from __future__ import annotations

import hashlib
import queue
import shlex
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from attrs import field, frozen

from tests.faults import filter as late_filter
from tests.faults import job as load_job
from tests.faults.client import CUT, Api, Bytes, End, Gone
from tests.faults.history import History

#: Answers after which the same key is tried again.
_AGAIN = frozenset({409, 429, 502, 503, 504})

#: Seconds after which the client of a key gives up.
_KEY_PATIENCE = 45.0

#: Seconds a job may wait for its worker; longer than any fault lasts.
_QUEUED = 600.0


@frozen
class Mix:
    """What the load is made of. Shares are from 0 to 1."""

    #: Starts a second.
    rate: float = 5.0
    #: Seconds a job runs, at least and at most.
    shortest: float = 0.0
    longest: float = 2.0
    #: Of the starts, with an idempotency key.
    keys: float = 0.5
    #: Of the starts, by ``POST /start``.
    classic: float = 0.2
    #: Of the other starts, those answered with the output of the job, which is read from the same answer on.
    streamed: float = 0.25
    #: Of the starts on a worker that is named, those that wait when it can't be reached.
    waiting: float = 0.3
    #: Of the jobs, stopped by a client.
    stops: float = 0.1
    #: Of the jobs, those whose output passes a filter that outlives the main process, and those that leave a process
    #: behind that has nothing to do with the output.
    filtered: float = 0.2
    background: float = 0.1
    #: Of the jobs, followed to their end.
    followed: float = 0.5
    #: Threads that start jobs, and threads that follow them.
    starters: int = 2
    readers: int = 4
    #: Threads that look at jobs, and looks a second of each.
    watchers: int = 1
    looks: float = 10.0
    #: Of the starts, on one of the workers that are named here; the others say that any will do.
    named: float = 0.5
    workers: Sequence[str] = ("w1",)


USUAL = Mix()

_Output = Iterator[Bytes | End]


#: Seconds for which a filter outlives its job, at most; much less than any ``linger``.
_LONGEST_FILTER = 0.5

#: In ``bash -c``, with the job as its arguments: the job becomes the main process.
_LEAVE_BEHIND = "sleep 1000 </dev/null >/dev/null 2>&1 & "
_RUN, _RUN_FILTERED = 'exec "$@"', 'exec "$@" > >(exec {filter})'


@frozen
class _Shape:
    """What a job has beside its main process."""

    filtered: bool
    background: int

    def command(self, argv: list[str], random: Random) -> list[str]:
        """``argv`` in that shape."""
        if not self.filtered and not self.background:
            return argv
        delay = f"{random.uniform(0.0, _LONGEST_FILTER):f}"
        its_filter = shlex.join([sys.executable, "-I", "-S", late_filter.__file__, delay])
        run = _RUN_FILTERED.format(filter=its_filter) if self.filtered else _RUN
        return ["bash", "-c", _LEAVE_BEHIND * self.background + run, "job", *argv]


@frozen
class _Job:
    id: str
    #: Stopped at that time, unless it has ended.
    stop_at: float | None = None


@frozen(slots=False)
class Load:
    """The clients. ``resume`` and ``pause`` begin and end the starting of jobs; the rest goes on until ``close``."""

    api: Api
    history: History
    folder: Path
    random: Random
    mix: Mix = USUAL
    #: Jobs that were answered for lately.
    recent: deque[_Job] = field(factory=lambda: deque(maxlen=40), init=False)
    #: Jobs whose output a fault has destroyed, so that nobody can read it to its end.
    without_output: set[str] = field(factory=set, init=False)
    _starting: threading.Event = field(factory=threading.Event, init=False)
    _closed: threading.Event = field(factory=threading.Event, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _in_flight: list[str] = field(factory=list, init=False)
    _to_follow: queue.Queue[tuple[str, _Output | None] | None] = field(factory=queue.Queue, init=False)
    _threads: list[threading.Thread] = field(factory=list, init=False)
    _errors: list[BaseException] = field(factory=list, init=False)

    @property
    def evidence(self) -> Path:
        """Where the jobs write."""
        return self.folder / "evidence"

    def start(self) -> None:
        """Start the threads; nothing is started before ``resume``."""
        self.evidence.mkdir(exist_ok=True)
        (self.folder / "scripts").mkdir(exist_ok=True)
        for number in range(self.mix.starters):
            self._thread(self._start_jobs, number)
        for _ in range(self.mix.watchers):
            self._thread(self._watch)
        for number in range(self.mix.readers):
            self._thread(self._read, number)

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
        """Start no more."""
        self._starting.clear()

    def pause(self) -> None:
        """Start no more; returns when every start is answered or given up."""
        self.hold()
        deadline = time.monotonic() + 2 * _KEY_PATIENCE
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(0.01)

    def give_up(self) -> None:
        """Do nothing new; the threads end when they can."""
        self.hold()
        self._closed.set()
        for _ in self._threads:
            self._to_follow.put(None)

    def close(self) -> None:
        """End all threads, after the readers have come to the end of what they read."""
        self.pause()
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
            self._in_flight.append(ticket := f"t{number}-{count}")
            try:
                if self._starting.is_set():
                    self.ticket(random, ticket)
            finally:
                self._in_flight.remove(ticket)
            self._closed.wait(random.uniform(0.5, 1.5) * self.mix.starters / self.mix.rate)

    def ticket(
        self,
        random: Random,
        ticket: str,
        seconds: float | None = None,
        worker: str | None = None,
        waits: bool | None = None,
    ) -> str | None:
        """Ask for a job, once or, with a key, until that is settled; its id where it was answered.

        What is ``None`` is as the mix has it. ``waits``: until the worker can be reached. One whose ``seconds`` are
        given is for its asker to stop.
        """
        mix = self.mix
        stopped = seconds is None and random.random() < mix.stops
        seconds = random.uniform(mix.shortest, mix.longest) if seconds is None else seconds
        lines = max(1, int(seconds * random.choice((10, 20, 40))))
        seed = random.getrandbits(30)
        file, pause = str(self.evidence / ticket), f"{seconds / lines:f}"
        shape = _Shape(random.random() < mix.filtered, int(random.random() < mix.background))
        argv = [sys.executable, "-I", "-S", load_job.__file__, file, str(seed), str(lines), pause]
        argv = shape.command(argv, random)
        linger = random.choice((None, None, "3s", "20s")) if shape.filtered else random.choice((None, None, 0))
        if worker is None and random.random() < mix.named:
            worker = random.choice(mix.workers)
        waits = random.random() < mix.waiting if waits is None else waits
        path, body = self._request(ticket, argv, worker, waits, classic=random.random() < mix.classic)
        if linger is not None and path == "/v1/jobs":
            body["linger"] = linger
        key = f"{ticket}-{seed}" if random.random() < mix.keys else None
        stop_at = time.monotonic() + random.uniform(0.0, seconds) if stopped else None
        followed = random.random() < mix.followed
        streamed = path == "/v1/jobs" and random.random() < mix.streamed
        deadline = time.monotonic() + _KEY_PATIENCE
        while True:
            status, job, output = self._ask(path, body, ticket, key, seed, lines, shape, streamed)
            if job is not None:
                self.recent.append(_Job(job, stop_at))
                if followed or output is not None:
                    self._to_follow.put((job, output))
                return job
            if key is None or not (status is None or status in _AGAIN) or time.monotonic() > deadline:
                return None
            self._closed.wait(random.uniform(0.1, 0.5))

    def _request(
        self, ticket: str, argv: list[str], worker: str | None, waits: bool, classic: bool
    ) -> tuple[str, dict[str, Any]]:
        """Path and body."""
        body = {"command": argv[0], "args": argv[1:]}
        if worker is None:
            return "/v1/jobs", {**body, "selector": {}}
        if waits:
            return "/v1/jobs", {**body, "worker": worker, "queue_timeout": _QUEUED}
        if not classic:
            return "/v1/jobs", {**body, "worker": worker}
        script = self.folder / "scripts" / f"{ticket}.sh"
        script.write_text(f"exec {shlex.join(argv)}\n")
        return "/start", {"worker_id": worker, "command": "sh", "path": str(script)}

    def _ask(
        self,
        path: str,
        body: dict[str, Any],
        ticket: str,
        key: str | None,
        seed: int,
        lines: int,
        shape: _Shape,
        streamed: bool,
    ) -> tuple[int | None, str | None, _Output | None]:
        """One request; its status and the job's id, where it was answered so far, and the output, if that follows."""
        began = time.monotonic()
        status, answer, error, output = None, None, None, None
        headers = {"Idempotency-Key": f'"{key}"'} if key else {}
        try:
            if streamed:
                status, answer, output = self.api.run(body, headers, timeout=20)
            else:
                status, answer = self.api.call("POST", path, body, headers, timeout=20)
        except CUT as cut:
            error = repr(cut)
        if status is not None and status >= 400:
            error = answer.get("error")
        job = (answer.get("id") or answer.get("job_id")) if isinstance(answer, dict) else None
        fields = {
            "ticket": ticket,
            "key": key,
            "seed": seed,
            "lines": lines,
            "filtered": shape.filtered,
            "background": shape.background,
            "worker": body.get("worker", body.get("worker_id")),
        }
        self.history.add("start", began, status=status, job=job, error=error, **fields)
        if status in (200, 201, 202) and "state" in answer and key is None:  # a replayed answer is of then, not of now
            self.history.see(answer, began, "start")
        return status, job, output

    # looks and stops

    def _watch(self, random: Random) -> None:
        while not self._closed.wait(random.uniform(0.5, 1.5) / self.mix.looks):
            for job in list(self.recent):
                if job.stop_at is not None and job.stop_at < time.monotonic():
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
        """Ask for the end of a job; the question counts, whatever the answer."""
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
            self.follow(job, f"r{number}-{count}", events=random.random() < 0.3, output=output)

    def follow(
        self, job: str, reader: str, events: bool = False, patience: float = 120.0, output: _Output | None = None
    ) -> None:
        """Read a job's stdout to its end, by ``output`` as far as that goes, resumed as often as it is cut."""
        reached, deadline = 0, time.monotonic() + patience
        while job not in self.without_output and time.monotonic() < deadline:
            began = time.monotonic()
            source = self.api.events if events else self.api.follow
            try:
                for item in output or source(job, reached, 15):
                    if isinstance(item, Gone):
                        return
                    if isinstance(item, End):
                        via = "events" if item.job is not None else "raw"
                        self._read_some(began, job, reader, Bytes(reached, b""), end=True, via=via)
                        if item.job is not None:
                            self.history.see(item.job, began, "events")
                        return
                    self._read_some(began, job, reader, item)
                    reached = item.offset + len(item.data)
            except CUT:
                pass
            output = None
            time.sleep(0.1)
        if job not in self.without_output:
            error = f"no end within {patience:g} s"
            self._read_some(time.monotonic(), job, reader, Bytes(reached, b""), error=error)

    def _read_some(self, began: float, job: str, reader: str, some: Bytes, **more: Any) -> None:
        digest = hashlib.sha256(some.data).hexdigest()
        fields = {"offset": some.offset, "length": len(some.data), "sha256": digest, **more}
        self.history.add("read", began, job=job, reader=reader, **fields)
