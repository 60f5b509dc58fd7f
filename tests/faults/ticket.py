"""What a client of the load wants run, once, and how it asks for that."""

from __future__ import annotations

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

#: Seconds a job may wait for its worker; longer than any fault lasts.
_QUEUED = 600.0

#: Seconds for which a filter outlives its job, at most; much less than any ``linger``.
_LONGEST_FILTER = 0.5

#: Seconds that a job goes without a client that attends it, at least and at most; what it runs beyond that while it is
#: attended, and how long it would run if nobody stopped it.
_UNATTENDED = (1.4, 2.4)
_ATTENDED_LONGER = 0.6
_FOR_EVER = 300.0

#: Seconds that an answer waits for the end of a job, and bytes of output that it has at most; both in turn.
_WAITS = (0.2, 0.5, 1.5)
_OUTPUTS = (0, 100, 1000, 65536)

#: In ``bash -c``, with the job as its arguments: the job becomes the main process.
_LEAVE_BEHIND = "sleep 1000 </dev/null >/dev/null 2>&1 & "
_RUN, _RUN_FILTERED = 'exec "$@"', 'exec "$@" > >(exec {filter})'


@frozen
class Shape:
    """What a job has beside its main process."""

    filtered: bool = False
    background: int = 0

    def command(self, argv: list[str], random: Random) -> list[str]:
        """``argv`` in that shape."""
        if not self.filtered and not self.background:
            return argv
        delay = f"{random.uniform(0.0, _LONGEST_FILTER):f}"
        its_filter = shlex.join([sys.executable, "-I", "-S", late_filter.__file__, delay])
        run = _RUN_FILTERED.format(filter=its_filter) if self.filtered else _RUN
        return ["bash", "-c", _LEAVE_BEHIND * self.background + run, "job", *argv]


@frozen
class Asked:
    """How an answer shall be that waits for the end of a job."""

    wait: float
    output: int
    check: bool

    @classmethod
    def draw(cls, random: Random) -> Asked:
        """One at random."""
        return cls(random.choice(_WAITS), random.choice(_OUTPUTS), random.random() < 0.5)

    @property
    def query(self) -> str:
        """The parameters."""
        return f"wait={self.wait:g}&output={self.output}&check={int(self.check)}"

    @property
    def fields(self) -> Mapping[str, Any]:
        """As the history has it."""
        return {"wait": self.wait, "output": self.output, "check": self.check}


@frozen
class Ticket:
    """A request for a job, and what the client does with the job."""

    name: str
    #: Of all that the job prints, and of its exit code.
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
    #: Answered at the end of the job, or with its output as it comes; else at once.
    asked: Asked | None = None
    streamed: bool = False
    followed: bool = False
    #: What happens to the job.
    stopped: bool = False
    signalled: bool = False
    waited: bool = False
    removed: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Idempotency-Key": f'"{self.key}"'} if self.key else {}

    @property
    def fields(self) -> Mapping[str, Any]:
        """As the history has it."""
        return {
            "ticket": self.name,
            "key": self.key,
            "seed": self.seed,
            "lines": self.lines,
            "filtered": self.shape.filtered,
            "background": self.shape.background,
            "unattended": self.unattended,
            "asked": self.asked and self.asked.fields,
            "worker": self.body.get("worker", self.body.get("worker_id")),
        }


@frozen
class Desk:
    """Makes tickets, at random, whose jobs write into ``folder``."""

    folder: Path
    mix: Mix

    @property
    def evidence(self) -> Path:
        """Where the jobs write."""
        return self.folder / "evidence"

    def make_folders(self) -> None:
        """Before the first ticket."""
        self.evidence.mkdir(exist_ok=True)
        (self.folder / "scripts").mkdir(exist_ok=True)

    def draw(
        self, random: Random, name: str, seconds: float | None, worker: str | None, waits: bool | None, own: bool
    ) -> Ticket:
        """One; what is ``None`` is as the mix has it. ``own``: the job is its asker's, nothing else happens to it."""
        mix = self.mix

        def share(part: float) -> bool:
            return random.random() < part

        unattended = random.uniform(*_UNATTENDED) if share(mix.unattended) and not own else None
        attended = unattended is not None and share(0.5)
        if unattended is not None:
            seconds = unattended + _ATTENDED_LONGER if attended else _FOR_EVER
        elif seconds is None:
            seconds = random.uniform(mix.shortest, mix.longest)
        lines = max(1, int(seconds * random.choice((10, 20, 40))))
        seed = random.getrandbits(30)
        shape = Shape() if unattended else Shape(share(mix.filtered), int(share(mix.background)))
        if worker is None and share(mix.named):
            worker = random.choice(mix.workers)
        waits = share(mix.waiting) if waits is None else waits
        argv = self._argv(random, name, seed, lines, seconds, shape)
        core = share(mix.core) and unattended is None
        path, body = self._request(name, argv, worker, waits, core)
        modern = path == "/v1/jobs"
        linger = random.choice((None, None, "3s", "20s")) if shape.filtered else random.choice((None, None, 0))
        if modern and linger is not None:
            body["linger"] = linger
        if unattended is not None:
            body["unattended_timeout"] = unattended
        asked = Asked.draw(random) if modern and not own and unattended is None and share(mix.answered) else None
        plain = not own and unattended is None
        return Ticket(
            name,
            seed,
            lines,
            seconds,
            path,
            body,
            shape,
            key=f"{name}-{seed}" if share(mix.keys) else None,
            unattended=unattended,
            attended=attended,
            asked=asked,
            streamed=modern and asked is None and (attended or unattended is None) and share(mix.streamed),
            followed=attended or (unattended is None and share(mix.followed)),
            stopped=plain and share(mix.stops),
            signalled=not own and share(mix.signals),
            waited=plain and share(mix.waits),
            removed=not own and share(mix.removals),
        )

    def _argv(self, random: Random, name: str, seed: int, lines: int, seconds: float, shape: Shape) -> list[str]:
        file, pause = str(self.evidence / name), f"{seconds / lines:f}"
        argv = [sys.executable, "-I", "-S", load_job.__file__, file, str(seed), str(lines), pause]
        return shape.command(argv, random)

    def _request(
        self, name: str, argv: list[str], worker: str | None, waits: bool, core: bool
    ) -> tuple[str, dict[str, Any]]:
        """Path and body."""
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
