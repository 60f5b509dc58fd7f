"""A job that a client of the load wants to run once, and the request for it."""

from __future__ import annotations

import base64
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from attrs import frozen

from tests.faults import filter as late_filter
from tests.faults import job as load_job
from tests.faults.mix import Mix

#: Seconds that a job may wait for its worker; longer than any fault.
_QUEUED = 600.0

#: The most seconds by which a filter outlives its job; much less than any ``linger``.
_LONGEST_FILTER = 0.5

#: Seconds that a job may be unattended, at least and at most; further seconds that it runs while it is attended, and
#: seconds that it would run if it were not stopped.
_UNATTENDED = (1.4, 2.4)
_ATTENDED_LONGER = 0.6
_FOR_EVER = 300.0

#: Seconds of a ``timeout`` that is to end its job, at least and at most, and of one that is not.
_TIMEOUT = (0.5, 1.5)
_TIMEOUT_LONG = 600.0

#: Seconds between lines of a job that would run for ever.
_SLOW_PAUSE = 0.05

#: Sizes of a job's stdin, in bytes, drawn at random.
_STDINS = (1, 1000, 65_536, 300_000)

#: The most retries of a job, and their delays in seconds.
_ATTEMPTS = (1, 2)
_DELAYS = (0, 0.3)

#: Seconds that an answer waits for the end of a job, and the most bytes of output in it.
_WAITS = (0.2, 0.5, 1.5)
_OUTPUTS = (0, 100, 1000, 65536)

#: In ``bash -c`` with the job as arguments: the job becomes the main process.
_LEAVE_BEHIND = "sleep 1000 </dev/null >/dev/null 2>&1 & "
_RUN, _RUN_FILTERED = 'exec "$@"', 'exec "$@" > >(exec {filter})'


@frozen
class Shape:
    """A job's further processes."""

    filtered: bool = False
    background: int = 0

    def command(self, argv: list[str], random: Random) -> list[str]:
        """``argv`` with these processes."""
        if not self.filtered and not self.background:
            return argv
        delay = f"{random.uniform(0.0, _LONGEST_FILTER):f}"
        its_filter = shlex.join([sys.executable, "-I", "-S", late_filter.__file__, delay])
        run = _RUN_FILTERED.format(filter=its_filter) if self.filtered else _RUN
        return ["bash", "-c", _LEAVE_BEHIND * self.background + run, "job", *argv]


@frozen
class Terms:
    """Unusual terms of a job: its timeout, its output limit, its retries."""

    timeout: float | None = None
    #: The share of its output that the job may print.
    limit_share: float | None = None
    attempts: int = 0
    delay: float = 0.0
    #: The attempt that succeeds; 0: the seed decides.
    good: int = 0

    @classmethod
    def draw(cls, random: Random, mix: Mix) -> Terms:
        """Random terms; most jobs have none."""
        chance = random.random()
        if chance < mix.timeouts:
            return cls(timeout=round(random.uniform(*_TIMEOUT), 3))
        if chance < 2 * mix.timeouts:
            return cls(timeout=_TIMEOUT_LONG)
        chance = random.random()
        if chance < 2 * mix.limits:
            return cls(limit_share=random.uniform(0.1, 0.9) if chance < mix.limits else 1.5)
        if random.random() < mix.retries:
            attempts = random.choice(_ATTEMPTS)
            return cls(attempts=attempts, delay=random.choice(_DELAYS), good=random.randint(1, attempts + 2))
        return cls()

    @property
    def for_ever(self) -> bool:
        """Whether the job runs until it is ended."""
        return self.timeout is not None and self.timeout < _TIMEOUT_LONG

    def limit(self, lines: int) -> int | None:
        """The output limit in bytes."""
        if self.limit_share is None:
            return None
        return max(1, int(self.limit_share * load_job.LINE * (lines + -(-lines // load_job.ERROR_EVERY))))

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the request that do not depend on the job."""
        found: dict[str, Any] = {} if self.timeout is None else {"timeout": self.timeout}
        return found | ({"retry": {"attempts": self.attempts, "delay": self.delay}} if self.attempts else {})


@frozen
class Asked:
    """The form of an answer that waits for the end of a job."""

    wait: float
    output: int
    check: bool

    @classmethod
    def draw(cls, random: Random) -> Asked:
        """A random form."""
        return cls(random.choice(_WAITS), random.choice(_OUTPUTS), random.random() < 0.5)

    @property
    def query(self) -> str:
        """The query parameters."""
        return f"wait={self.wait:g}&output={self.output}&check={int(self.check)}"

    @property
    def fields(self) -> Mapping[str, Any]:
        """The form as recorded in the history."""
        return {"wait": self.wait, "output": self.output, "check": self.check}


@frozen
class Ticket:
    """A request for a job, and the client's further plans for the job."""

    name: str
    #: The seed of the job's output and exit code.
    seed: int
    lines: int
    #: Seconds that it runs.
    seconds: float
    path: str
    body: Mapping[str, Any]
    shape: Shape = Shape()
    key: str | None = None
    #: Its ``unattended_timeout``; ``attended``: a client follows it throughout.
    unattended: float | None = None
    attended: bool = False
    #: Seconds, bytes, bytes, and the number of retries.
    timeout: float | None = None
    output_limit: int | None = None
    stdin: int = 0
    attempts: int = 0
    #: Answered at the end of the job, or with its output as it comes; ``None``: at once.
    asked: Asked | None = None
    streamed: bool = False
    followed: bool = False
    #: Further plans for the job.
    stopped: bool = False
    signalled: bool = False
    waited: bool = False
    removed: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Idempotency-Key": f'"{self.key}"'} if self.key else {}

    @property
    def fields(self) -> Mapping[str, Any]:
        """The ticket as recorded in the history."""
        return {
            "ticket": self.name,
            "key": self.key,
            "seed": self.seed,
            "lines": self.lines,
            "filtered": self.shape.filtered,
            "background": self.shape.background,
            "unattended": self.unattended,
            "timeout": self.timeout,
            "output_limit": self.output_limit,
            "stdin": self.stdin,
            "attempts": self.attempts,
            "asked": self.asked and self.asked.fields,
            "worker": self.body.get("worker", self.body.get("worker_id")),
        }


@frozen
class Desk:
    """Makes random tickets whose jobs write into ``folder``."""

    folder: Path
    mix: Mix

    @property
    def evidence(self) -> Path:
        """The folder in which the jobs write."""
        return self.folder / "evidence"

    def make_folders(self) -> None:
        """Create the folders, before the first ticket."""
        self.evidence.mkdir(exist_ok=True)
        (self.folder / "scripts").mkdir(exist_ok=True)

    def draw(
        self, random: Random, name: str, seconds: float | None, worker: str | None, waits: bool | None, own: bool
    ) -> Ticket:
        """A ticket. A value of ``None`` is drawn from the mix. ``own``: the job belongs to the caller, without other
        plans.
        """
        mix = self.mix

        def share(part: float) -> bool:
            return random.random() < part

        unattended = random.uniform(*_UNATTENDED) if share(mix.unattended) and not own else None
        attended = unattended is not None and share(0.5)
        if unattended is not None:
            seconds = unattended + _ATTENDED_LONGER if attended else _FOR_EVER
        terms = Terms() if own or unattended is not None else Terms.draw(random, mix)
        if terms.for_ever:
            seconds = _FOR_EVER
        elif seconds is None:
            seconds = random.uniform(mix.shortest, mix.longest)
        lines = int(_FOR_EVER / _SLOW_PAUSE) if terms.for_ever else int(seconds * random.choice((10, 20, 40)))
        lines = max(1, lines)
        seed = random.getrandbits(30)
        simple = unattended is not None or terms.limit_share is not None or terms.for_ever
        shape = Shape() if simple else Shape(share(mix.filtered), int(share(mix.background)))
        if worker is None and share(mix.named):
            worker = random.choice(mix.workers)
        waits = share(mix.waiting) if waits is None else waits
        argv = self._argv(random, name, seed, lines, seconds, shape, terms.good)
        core = share(mix.core) and unattended is None and terms == Terms()
        path, body = self._request(name, argv, worker, waits, core)
        modern = path == "/v1/jobs"
        linger = random.choice((None, None, "3s", "20s")) if shape.filtered else random.choice((None, None, 0))
        if modern and linger is not None:
            body["linger"] = linger
        if unattended is not None:
            body["unattended_timeout"] = unattended
        limit = terms.limit(lines)
        stdin = random.choice(_STDINS) if modern and share(mix.stdins) else 0
        if modern:
            body |= terms.fields | ({} if limit is None else {"output_limit": limit})
            if stdin:
                body["stdin_base64"] = base64.b64encode(load_job.stdin(seed, stdin)).decode()
            if share(mix.scripts):
                body |= {"script": f'#!/bin/sh\nexec {shlex.quote(argv[0])} "$@"\n'}
                del body["command"]
        alone = unattended is None and not terms.attempts  # with ``wait`` the answer is about the last attempt
        asked = Asked.draw(random) if modern and not own and alone and share(mix.answered) else None
        plain = not own and unattended is None
        return Ticket(
            name,
            seed,
            lines,
            (terms.timeout or seconds) if terms.for_ever else seconds,
            path,
            body,
            shape,
            key=f"{name}-{seed}" if share(mix.keys) else None,
            unattended=unattended,
            attended=attended,
            timeout=terms.timeout,
            output_limit=limit,
            stdin=stdin,
            attempts=terms.attempts,
            asked=asked,
            streamed=modern and asked is None and (attended or unattended is None) and share(mix.streamed),
            followed=attended or (unattended is None and share(mix.followed)),
            stopped=plain and share(mix.stops),
            signalled=not own and share(mix.signals),
            waited=plain and share(mix.waits),
            removed=not own and share(mix.removals),
        )

    def _argv(
        self, random: Random, name: str, seed: int, lines: int, seconds: float, shape: Shape, good: int
    ) -> list[str]:
        file, pause = str(self.evidence / name), f"{seconds / lines:f}"
        argv = [sys.executable, "-I", "-S", load_job.__file__, file, str(seed), str(lines), pause, str(good)]
        return shape.command(argv, random)

    def _request(
        self, name: str, argv: list[str], worker: str | None, waits: bool, core: bool
    ) -> tuple[str, dict[str, Any]]:
        """The path and body of the request."""
        body = {"command": argv[0], "args": argv[1:]}
        if worker is None:
            return "/v1/jobs", {**body, "selector": {}}
        if waits:
            return "/v1/jobs", {**body, "worker": worker, "queue_timeout": _QUEUED}
        if not core:
            return "/v1/jobs", {**body, "worker": worker}
        script = self.folder / "scripts" / f"{name}.sh"
        script.write_text(f"exec {shlex.join(argv)}\n")
        return "/start", {"worker_id": worker, "command": "sh", "path": str(script)}
