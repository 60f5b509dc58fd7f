"""The output of jobs: followed live from any offset, or read as it is now.

A follower (``scheduler.cluster.output.follower``) shares one stream to the worker with all others of the same output
(``scheduler.cluster.output.live``). Output that is read as it is now takes one call to the worker. The scheduler stores
no output.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.output.bounds import judged, length, no_record, nothing, without_worker
from scheduler.cluster.output.follower import Follower
from scheduler.cluster.output.live import FollowedJob, Live
from scheduler.cluster.output.window import Window
from scheduler.cluster.reach import Reach
from scheduler.errors import NotFound, ShuttingDown, Unavailable, Unsupported
from scheduler.interfaces import IOutputReader, IWorkerClient
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream

#: Bytes of a followed stream that are kept at its live end.
WINDOW_BYTES = 4 * 1024 * 1024

#: The capability that a core worker lacks.
CAPABILITY = "reading the output of jobs"


class Outputs:
    """Opens followers, and tells them of changes; there is one for each scheduler."""

    def __init__(self, clock: IReactorTime, client: IWorkerClient, reach: Reach, window: int = WINDOW_BYTES) -> None:
        """``clock`` measures delays; ``window`` is in bytes."""
        self._clock = clock
        self._client = client
        self._reach = reach
        self._registry = reach.registry
        self._window = window
        # by the id of the job
        self._followed: dict[str, FollowedJob] = {}
        # the same jobs by the id of their worker; dicts, for their order
        self._jobs_of: dict[str | None, dict[FollowedJob, None]] = {}
        self._stopping = False

    @property
    def idle(self) -> bool:
        """Whether no output is followed."""
        return not (self._followed or self._jobs_of)

    @property
    def bytes_held(self) -> int:
        return sum(live.window.size for live in self._all())

    def open(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        """Follow a stream from ``offset`` on. Raises what ``_job`` raises, or ``Busy`` if no stream is free."""
        job = self._job(job_id)
        followed = self._followed.get(job_id)
        if followed is None:
            followed = self._followed[job_id] = FollowedJob(self._reach, job)
            self._file(followed, job.worker_id)
        live = followed.streams.get(stream)
        if live is None:
            live = Live(self._clock, self._client, followed, stream, Window(self._window, offset), self._drop)
            followed.streams[stream] = live
        follower = Follower(live, offset)
        if follower.error is not None:
            raise follower.error
        return follower

    def read(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        """See ``IScheduler.read_output``."""
        return Deferred.fromCoroutine(self._read(job_id, stream, offset, size))

    def hear(self, change: Change) -> None:
        if isinstance(change, JobChanged):
            self._job_changed(change)
            return
        for followed in list(self._jobs_of.get(change.ref.id, ())):
            for live in list(followed.streams.values()):
                live.worker_changed()

    def _job_changed(self, change: JobChanged) -> None:
        job = change.last
        followed = self._followed.get(job.id)
        if followed is None:
            return
        if change.after is None and job.id in self._registry.removed:
            for live in list(followed.streams.values()):
                live.fail(NotFound("job", job.id))
            return
        self._unfile(followed)
        self._file(followed, job.worker_id)
        for live in list(followed.streams.values()):
            live.job_changed()

    def shut_down(self) -> None:
        """End every stream, and every follower with ``ShuttingDown``, now or when it reads."""
        self._stopping = True
        for live in self._all():
            live.fail(ShuttingDown())

    def _all(self) -> list[Live]:
        return [live for followed in self._followed.values() for live in followed.streams.values()]

    def _job(self, job_id: str) -> Job:
        """The job. Raises ``NotFound``, ``ShuttingDown``, or ``Unsupported`` if its worker keeps no output."""
        if self._stopping:
            raise ShuttingDown()
        job = self._registry.jobs.get(job_id)
        worker = self._registry.workers.find(job.worker_id)
        if worker is not None and not worker.has_output:
            raise Unsupported(worker.name, CAPABILITY)
        return job

    async def _read(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        job = self._job(job_id)
        whole = 0 if job.state is JobState.QUEUED else length(job, stream)
        if whole is not None and offset >= whole:
            return judged(nothing(offset, whole, end=job.over), job, stream)
        worker = self._registry.workers.find(job.worker_id)
        if worker is None:
            raise without_worker(job)
        self._reach.check(worker)
        try:
            chunk = await self._client.read_output(worker, job.id_on_worker, stream, offset, size)
        except NotFound:
            now = self._registry.jobs.find(job_id)
            if not job.over and now is not None and now.over:
                return await self._read(job_id, stream, offset, size)  # the worker may have answered before it began
            if job.over:
                raise no_record(job) from None
            if job.state is JobState.STARTING:
                return nothing(offset, 0, end=False)
            raise Unavailable(f"job {job_id!r} is {job.state.value}: its worker does not know it at present") from None
        return judged(chunk, self._registry.jobs.find(job_id) or job, stream)

    def _file(self, followed: FollowedJob, worker_id: str | None) -> None:
        followed.filed_under = worker_id
        self._jobs_of.setdefault(worker_id, {})[followed] = None

    def _unfile(self, followed: FollowedJob) -> None:
        jobs = self._jobs_of[followed.filed_under]
        del jobs[followed]
        if not jobs:
            del self._jobs_of[followed.filed_under]

    def _drop(self, live: Live) -> None:
        followed = live.followed
        del followed.streams[live.stream]
        if not followed.streams:
            del self._followed[followed.job.id]
            self._unfile(followed)
