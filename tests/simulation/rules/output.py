"""P3: a client reads the output that the job wrote, from the first requested byte to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.errors import NotFound, OffsetBeyondEnd, OutputGone, OutputPruned, SchedulerError
from scheduler.model import JobState, Stream
from tests.simulation.clients import Reply
from tests.simulation.machine import LINE, output
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.follow import Follower


class Output(Rule):
    """Every byte arrives once and in order. The end arrives when the job has ended and all is delivered, and not
    before.
    """

    def delivered(self, follower: Follower, offset: int, data: bytes) -> None:
        job_id = follower.job_id
        if offset != follower.offset:
            self.broken("P3 in order", f"job {job_id}: output of {offset}, where {follower.offset} is next", job_id)
        for what in self._untrue(job_id, follower.stream, offset, data):
            self.broken("P3 as written", f"job {job_id}: {what}", job_id)

    def _untrue(self, job_id: str, stream: Stream, offset: int, data: bytes) -> list[str]:
        if job_id in self.facts.excused:
            return []
        there = self.written(job_id, stream)
        if offset + len(data) > len(there):
            return [f"{offset + len(data)} bytes were read, and it has written {len(there)}"]
        if there[offset : offset + len(data)] != data:
            return [f"{data!r} was read from {offset}, and it wrote {there[offset : offset + len(data)]!r}"]
        return []

    def written(self, job_id: str, stream: Stream) -> bytes:
        """All bytes that the job has written so far."""
        run = self.facts.run_of(job_id)
        if run is None or stream is Stream.STDERR:
            return b""
        return output(job_id, run.lines(self.facts.world.loop.now))

    def output_over(self, follower: Follower, cut: str) -> None:
        job_id = follower.job_id
        run = self.facts.run_of(job_id)
        if job_id in self.facts.excused or self.facts.is_unheard(job_id):
            return
        if run is not None and run.ended is None:
            self.broken("P3 end", f"job {job_id} runs, and its output has an end ({cut})", job_id)
        if cut and (run is None or not run.destroyed):
            self.broken("P3 end", f"job {job_id}: its output is said to be cut ({cut})", job_id)
        size = len(self.written(job_id, follower.stream))
        if not cut and follower.offset != max(size, follower.began):
            self.broken("P3 end", f"job {job_id}: the end at {follower.offset}, and it has written {size}", job_id)
        if not cut and run is not None and run.destroyed:
            self.broken("P3 end", f"job {job_id} was destroyed, and its output has a proper end", job_id)

    def output_refused(self, follower: Follower, error: SchedulerError) -> None:
        if follower.job_id in self.facts.excused:
            return
        run = self.facts.run_of(follower.job_id)
        lines = 0 if run is None or follower.stream is Stream.STDERR else run.lines(follower.asked_at)
        if isinstance(error, OffsetBeyondEnd) and follower.offset <= lines * LINE:
            self._refused(follower, error)
        if isinstance(error, OutputPruned) and not self._is_pruned(follower.job_id):
            self._refused(follower, error)
        if isinstance(error, OutputGone) and self._is_kept(follower.job_id):
            self._refused(follower, error)
        if not isinstance(error, NotFound) or follower.job_id in self.facts.removals:
            return
        if not self.facts.may_be_unknown(follower.job_id, follower.asked_at):
            self._refused(follower, error)

    def _is_pruned(self, job_id: str) -> bool:
        """Whether the job's worker has removed the output."""
        return any(node.folder.used.get(job_id) == "pruned" for node in self.facts.world.workers.values())

    def _is_kept(self, job_id: str) -> bool:
        """Whether the job's worker must have the output: the job is not lost, and the scheduler knows the worker."""
        job = self.facts.shown.get(job_id)
        scheduler = self.facts.world.scheduler
        if job is None or job.state is JobState.LOST:
            return False
        return scheduler is None or scheduler.parts.ledger.registry.workers.find(job.worker_id) is not None

    def _refused(self, follower: Follower, error: SchedulerError) -> None:
        what = f"job {follower.job_id}: output from {follower.offset} is refused: {error}"
        self.broken("P3 there", what, follower.job_id)

    def replied(self, reply: Reply) -> None:
        if reply.name != "read" or reply.job_id in self.facts.excused or self.facts.is_unheard(reply.job_id):
            return
        offset, size, before = reply.detail
        run = self.facts.run_of(reply.job_id)
        if isinstance(reply.error, OffsetBeyondEnd) and offset <= before * LINE:
            what = f"job {reply.job_id}: {reply.error}, and it had written {before * LINE}"
            self.broken("P3 there", what, reply.job_id)
        if not reply.answered:
            return
        chunk = reply.value
        for what in self._untrue(reply.job_id, Stream.STDOUT, chunk.offset, chunk.data):
            self.broken("P3 as written", f"job {reply.job_id}: {what}", reply.job_id)
        if chunk.offset != offset or len(chunk.data) > size:
            what = f"job {reply.job_id}: {len(chunk.data)} bytes from {chunk.offset}, for {size} from {offset}"
            self.broken("P3 in order", what, reply.job_id)
        if chunk.size < before * LINE:
            what = f"job {reply.job_id}: its output has {chunk.size} bytes, and {before * LINE} were there before"
            self.broken("P3 as written", what, reply.job_id)
        if chunk.end and run is not None and run.ended is None:
            self.broken("P3 end", f"job {reply.job_id} runs, and its output has an end", reply.job_id)

    def ended(self) -> None:
        for follower in self.facts.followers:
            job = self.facts.shown.get(follower.job_id)
            run = self.facts.run_of(follower.job_id)
            if follower.over or not follower.stubborn or job is None or run is None or run.ended is None:
                continue
            if job.id in self.facts.excused or job.id in self.facts.removals or job.state is JobState.LOST:
                continue
            folder = self.facts.owners.get(job.worker_id or "")
            if job.worker_id in self.facts.core or (folder is not None and folder.lost):
                continue  # there is no output to read
            what = f"job {job.id} is {job.state.value}, and a client that follows is still at {follower.offset}"
            self.broken("P3 end", what, job.id)
