"""Adoption of jobs that a worker reports and the scheduler does not know.

A worker may report anything. So a job is adopted only if this scheduler asked that worker to describe it. The answer to
a heartbeat asks about a few jobs, and the rest waits for later answers. The number of adopted jobs of one worker is
bounded, and adopted jobs never make the registry let go of a job that the scheduler itself placed.
"""

from __future__ import annotations

from itertools import islice

from attrs import Factory, define
from twisted.logger import Logger

from scheduler.cluster.ledger import Ledger
from scheduler.errors import Invalid
from scheduler.messages import Heartbeat, JobReport
from scheduler.model import JobSpec, Worker
from scheduler.reading import NAME_MAX_CHARACTERS, PATH_MAX_BYTES, check_count, check_text

#: Jobs that one answer asks about, and that one heartbeat can have adopted.
DESCRIBED_PER_HEARTBEAT = 64

#: Adopted jobs that are kept for one worker, and for all.
ADOPTED_PER_WORKER_MAX = 1_000
ADOPTED_MAX = 100_000

#: Ids of jobs that are remembered for one worker until it describes them.
REMEMBERED_MAX = 1_000

#: Heartbeats after which an id is forgotten that the worker neither reported nor described again.
HEARTBEATS_REMEMBERED = 20

#: Bytes of all texts of an adopted job, and the number of its labels: the limits for clients.
SPEC_MAX_BYTES = 1024 * 1024
LABELS_MAX = 64


@define
class _Unknown:
    """Ids of unknown jobs that one worker reported, each with the number of the last heartbeat that reported it."""

    #: Ids to ask about, in order.
    reported: dict[str, int] = Factory(dict)
    #: Ids that were asked about, and are not adopted yet, in order.
    asked: dict[str, int] = Factory(dict)
    #: Ids in either of these that were reported to run: every heartbeat reports them again while they run.
    running: set[str] = Factory(set)
    #: Heartbeats so far.
    heartbeats: int = 0
    #: Jobs that the present heartbeat had adopted.
    adopted: int = 0
    #: Whether no further job is adopted, which was logged.
    full: bool = False

    def drop(self, job_id: str) -> None:
        """Forget a job that is known by now, or is no longer reported."""
        self.reported.pop(job_id, None)
        self.asked.pop(job_id, None)
        self.running.discard(job_id)


class Adoption:
    """Decides which jobs are asked about and adopted; there is one for each scheduler."""

    _log = Logger()

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._registry = ledger.registry
        self._unknown: dict[str, _Unknown] = {}

    @property
    def idle(self) -> bool:
        """Whether no worker has reported an unknown job."""
        return not self._unknown

    @property
    def most_remembered(self) -> int:
        """The largest number of ids that are remembered of one worker: of those reported, or of those asked about."""
        return max((max(len(each.reported), len(each.asked)) for each in self._unknown.values()), default=0)

    def is_open(self, worker_id: str) -> bool:
        """Whether the worker has reported unknown jobs, and more of them may be adopted."""
        unknown = self._unknown.get(worker_id)
        return unknown is not None and not unknown.full and bool(unknown.reported or unknown.asked)

    def forget(self, worker_id: str) -> None:
        """Forget the reports of a worker that is a new process, or gone."""
        self._unknown.pop(worker_id, None)

    def begin(self, heartbeat: Heartbeat) -> None:
        """Forget jobs that are gone or known by now; called with a heartbeat, before the other methods."""
        unknown = self._unknown.get(heartbeat.worker_id)
        if unknown is None:
            return
        unknown.adopted = 0
        unknown.heartbeats += 1
        mentioned = heartbeat.mentioned
        gone = unknown.running - mentioned
        for job_id, last in (*unknown.reported.items(), *unknown.asked.items()):
            if self._registry.jobs.find(job_id) is not None or unknown.heartbeats - last > HEARTBEATS_REMEMBERED:
                gone.add(job_id)
        for job_id in gone:
            unknown.drop(job_id)

    def admits(self, worker: Worker, report: JobReport) -> bool:
        """Whether the job is adopted now: it was asked about, and there is room. Raises ``Invalid`` for bad data."""
        assert report.spec is not None
        unknown, job_id = self._unknown.get(worker.id), report.status.job_id
        if unknown is None or job_id not in unknown.asked or unknown.adopted >= DESCRIBED_PER_HEARTBEAT:
            return False
        if self._room(worker, unknown) <= unknown.adopted:
            return False
        if self._registry.workers.has(job_id):
            raise Invalid("jobID", f"{job_id!r} is the id or name of a worker")
        _check(report.spec)
        unknown.drop(job_id)
        unknown.adopted += 1
        return True

    def remember(self, worker: Worker, job_id: str, runs: bool) -> None:
        """Remember an unknown job that the worker reports, until it describes the job."""
        unknown = self._unknown.setdefault(worker.id, _Unknown())
        if job_id in unknown.reported or len(unknown.reported) < REMEMBERED_MAX:  # else it is reported again
            unknown.reported[job_id] = unknown.heartbeats
            if runs:
                unknown.running.add(job_id)

    def questions(self, worker: Worker, known: list[str]) -> tuple[str, ...]:
        """Ids of the jobs that the worker is asked to describe: from ``known``, then from the unknown ones."""
        asked = known[:DESCRIBED_PER_HEARTBEAT]
        unknown = self._unknown.get(worker.id)
        if unknown is None:
            return tuple(asked)
        room = min(DESCRIBED_PER_HEARTBEAT - len(asked), self._room(worker, unknown) - unknown.adopted)
        following = list(islice(unknown.reported, max(room, 0)))
        for job_id in following:
            del unknown.reported[job_id]
            unknown.asked.pop(job_id, None)
            unknown.asked[job_id] = unknown.heartbeats
        for job_id in list(islice(unknown.asked, max(len(unknown.asked) - REMEMBERED_MAX, 0))):
            unknown.drop(job_id)
        if not (unknown.reported or unknown.asked):
            del self._unknown[worker.id]
        return (*asked, *following)

    def _room(self, worker: Worker, unknown: _Unknown) -> int:
        """The number of jobs of the worker that may still be adopted."""
        own, total = self._ledger.endings.adopted(worker.id)
        room = min(ADOPTED_PER_WORKER_MAX - own, ADOPTED_MAX - total)
        if room <= 0 and not unknown.full:
            self._log.warn(
                "worker {name} ({worker_id}) reports jobs that are not known, and no more are adopted: {own} that were "
                "adopted of it are kept, {total} in all",
                name=worker.name,
                worker_id=worker.id,
                own=own,
                total=total,
            )
        unknown.full = room <= 0
        return room


def _check(spec: JobSpec) -> None:
    """Raise ``Invalid`` for a spec that no client could have submitted."""
    for field in ("command", "path", "cwd"):
        check_text(field, getattr(spec, field), one_line=True, most=PATH_MAX_BYTES)
    check_count("labels", spec.labels, LABELS_MAX)
    for text in (*spec.labels, *spec.labels.values()):
        if not text.isprintable() or len(text) > NAME_MAX_CHARACTERS:
            raise Invalid("labels", f"must be printable text of at most {NAME_MAX_CHARACTERS} characters")
    texts = (spec.command, spec.path, spec.cwd, *spec.args, *spec.env, *spec.env.values())
    size = sum(len(check_text("start", text).encode()) for text in texts)
    if size > SPEC_MAX_BYTES:
        raise Invalid("start", f"has {size} bytes of text; at most {SPEC_MAX_BYTES} are allowed")
