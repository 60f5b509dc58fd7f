"""Jobs that a worker reports and the scheduler does not know: which it asks about, and which it takes over.

A worker may report what it likes. So a job is adopted only if this scheduler asked
that worker to describe it; an answer asks about a few, and the rest waits for the
answers that follow. What one worker may have adopted is bounded, and adopted jobs
never make the registry let go of a job that the scheduler itself placed.
"""

from __future__ import annotations

from itertools import islice

from attrs import Factory, define
from twisted.logger import Logger

from scheduler.cluster.ledger import Ledger
from scheduler.errors import Invalid
from scheduler.fields import NAME_MAX_CHARACTERS, PATH_MAX_BYTES, check_count, check_text
from scheduler.messages import Heartbeat, JobReport
from scheduler.model import JobSpec, Worker

#: Jobs that one answer asks about, and that one heartbeat can have adopted.
DESCRIBED_PER_HEARTBEAT = 64

#: Adopted jobs that are kept of one worker, and of all.
ADOPTED_PER_WORKER_MAX = 1_000
ADOPTED_MAX = 100_000

#: Ids of jobs of one worker that are remembered until it describes them.
REMEMBERED_MAX = 1_000

#: Heartbeats after which an id is forgotten that the worker neither reported nor described again.
HEARTBEATS_REMEMBERED = 20

#: Bytes of all texts of an adopted job, and how many labels it has: as many as a client could have given it.
SPEC_MAX_BYTES = 1024 * 1024
LABELS_MAX = 64


@define
class _Unknown:
    """Ids of jobs that one worker reported and that are not known, each with the heartbeat that last reported it."""

    #: To be asked about, in order.
    reported: dict[str, int] = Factory(dict)
    #: Asked about, and not adopted yet, in order.
    asked: dict[str, int] = Factory(dict)
    #: Those of both that were reported to run: every heartbeat reports them again while they do.
    running: set[str] = Factory(set)
    #: Heartbeats so far.
    heartbeats: int = 0
    #: Jobs that the present one had adopted.
    adopted: int = 0
    #: No further job is adopted, and that was logged.
    full: bool = False

    def drop(self, job_id: str) -> None:
        """Forget a job that is known by now, or not reported any more."""
        self.reported.pop(job_id, None)
        self.asked.pop(job_id, None)
        self.running.discard(job_id)


class Adoption:
    """Decides which jobs are adopted; there is one for each scheduler."""

    _log = Logger()

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._registry = ledger.registry
        self._unknown: dict[str, _Unknown] = {}

    @property
    def idle(self) -> bool:
        """Whether no worker has reported a job that is not known."""
        return not self._unknown

    @property
    def most_remembered(self) -> int:
        """The largest number of ids that are remembered of one worker: of those reported, or of those asked about."""
        return max((max(len(each.reported), len(each.asked)) for each in self._unknown.values()), default=0)

    def is_open(self, worker_id: str) -> bool:
        """Whether the worker has reported jobs that are not known, and more of them may be adopted."""
        unknown = self._unknown.get(worker_id)
        return unknown is not None and not unknown.full and bool(unknown.reported or unknown.asked)

    def forget(self, worker_id: str) -> None:
        """Forget what a worker reported that is a new process now, or gone."""
        self._unknown.pop(worker_id, None)

    def begin(self, heartbeat: Heartbeat) -> None:
        """A heartbeat has come; what it reports is told after this."""
        unknown = self._unknown.get(heartbeat.worker_id)
        if unknown is None:
            return
        unknown.adopted = 0
        unknown.heartbeats += 1
        mentioned = heartbeat.mentioned
        gone = unknown.running - mentioned
        for job_id, last in (*unknown.reported.items(), *unknown.asked.items()):
            if self._registry.find_job(job_id) is not None or unknown.heartbeats - last > HEARTBEATS_REMEMBERED:
                gone.add(job_id)
        for job_id in gone:
            unknown.drop(job_id)

    def admits(self, worker: Worker, report: JobReport) -> bool:
        """Whether a job that is not known is adopted now: it was asked about, and there is room. ``Invalid``."""
        assert report.spec is not None
        unknown, job_id = self._unknown.get(worker.id), report.status.job_id
        if unknown is None or job_id not in unknown.asked or unknown.adopted >= DESCRIBED_PER_HEARTBEAT:
            return False
        if self._room(worker, unknown) <= unknown.adopted:
            return False
        if self._registry.has_worker(job_id):
            raise Invalid("jobID", f"{job_id!r} is the id or name of a worker")
        _check(report.spec)
        unknown.drop(job_id)
        unknown.adopted += 1
        return True

    def remember(self, worker: Worker, job_id: str, runs: bool) -> None:
        """The worker reports a job that is not known."""
        unknown = self._unknown.setdefault(worker.id, _Unknown())
        if job_id in unknown.reported or len(unknown.reported) < REMEMBERED_MAX:  # else it is reported again
            unknown.reported[job_id] = unknown.heartbeats
            if runs:
                unknown.running.add(job_id)

    def questions(self, worker: Worker, known: list[str]) -> tuple[str, ...]:
        """Ids of the jobs that the worker is to describe: some of those that are ``known``, and of the others."""
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
        """The number of further jobs of the worker that may be adopted."""
        own, total = self._ledger.adopted(worker.id)
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
    """``Invalid`` for what no client could have asked for."""
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
