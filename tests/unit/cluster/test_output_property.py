"""Followers assemble the content of the spool, and an end without ``cut`` means all that the job wrote."""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster import lifecycle
from scheduler.errors import Busy, DeadlineExceeded, Unreachable, WorkerFault
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk, JobStatus
from scheduler.model import JobState, Stream, WorkerState
from tests.house import House
from tests.unit.cluster.spooled import SpooledWorkers
from tests.unit.cluster.values import a_job, a_worker

WINDOW = 64
OUT, ERR = ("j-1", Stream.STDOUT), ("j-1", Stream.STDERR)
#: A few bytes, parts of the window, all of it, and more.
SIZES = (1, 5, 20, 30, 70, 200)


@define
class Follower:
    """Collects the chunks of its reader."""

    reader: IOutputReader
    key: tuple[str, Stream]
    start: int
    got: bytes = b""
    asking: bool = False
    ended: bool = False
    #: Of the end.
    cut: str = ""
    failures: list[Failure] = field(factory=list)

    @property
    def over(self) -> bool:
        return self.ended or bool(self.failures)

    def ask(self) -> None:
        if not self.asking and not self.over:
            self.asking = True
            read: Deferred[Chunk] = self.reader.read()
            read.addCallback(self.take).addErrback(self.failed)

    def take(self, chunk: Chunk) -> None:
        assert chunk.offset == self.start + len(self.got), "a gap, or a repeat"
        assert chunk.data or chunk.end, "nothing, and not the end"
        assert chunk.end or not chunk.cut, "cut, and not the end"
        self.asking = False
        self.got += chunk.data
        self.ended, self.cut = chunk.end, chunk.cut

    def failed(self, reason: Failure) -> None:
        self.asking = False
        self.failures.append(reason)


class World:
    """A job that writes, its worker that comes and goes, and followers that join, read, dawdle and leave.

    Each method whose name is in ``EVENTS`` makes something happen; ``n`` chooses its details.
    """

    EVENTS = (
        *("write", "write", "write_much", "write_much", "join", "join", "leave", "end", "report"),
        *("read_fast", "read_fast", "read_some", "read_some", "read_one", "read_one", "stream", "stream", "answer"),
        *("wait", "disconnect", "come_back", "come_back", "restart", "cut", "skew", "fail_read"),
    )

    def __init__(self, seed: int) -> None:
        self.client = SpooledWorkers(Clock())
        self.house = House(lambda: 1000.0, window=WINDOW, workers=self.client)
        self.clock, self.outputs = self.house.clock, self.house.parts.outputs
        self.random = random.Random(seed)
        # one of an earlier version does not say that output was cut
        self.house.add(a_worker() if seed % 3 else a_worker(features=frozenset()))
        self.house.add(a_job())
        self.followers: list[Follower] = []
        #: What the job wrote, which its worker may not have kept to the end; and how it ended there.
        self.written = {OUT: b"", ERR: b""}
        self.status: JobStatus | None = None

    @property
    def running(self) -> bool:
        return self.status is None

    def write(self, n: int) -> None:
        self.put(ERR if n % 4 == 0 else OUT, SIZES[n % len(SIZES)])

    def write_much(self, n: int) -> None:
        self.put(OUT, n)

    def put(self, key: tuple[str, Stream], size: int) -> None:
        if self.running:
            data = self.random.randbytes(size)
            self.written[key] += data
            self.client.spools[key].data += data

    def join(self, n: int) -> None:
        key = ERR if n % 4 == 0 else OUT
        size = len(self.client.spools[key].data)
        offset = [0, 0, n % (size + 1), max(0, size - n % 100), size][n % 5]
        if len(self.followers) < 6:
            self.followers.append(Follower(self.outputs.open(*key, offset), key, offset))

    def leave(self, n: int) -> None:
        if self.followers:
            follower = self.followers.pop(n % len(self.followers))
            follower.reader.close()
            follower.reader.close()

    def read_one(self, n: int) -> None:
        if self.followers:
            self.followers[n % len(self.followers)].ask()

    def read_some(self, n: int) -> None:
        """Two of three followers read on and on; every third is left behind."""
        for _ in range(5):
            for follower in self.followers[::3] + self.followers[1::3]:
                follower.ask()
            self.client.flow(SIZES[n % 5])
            for _ in range(len(self.client.reads)):
                self.client.answer(SIZES[n % 5])

    def read_fast(self, n: int) -> None:
        """All followers read everything, while a little time passes."""
        for _ in range(5):
            for follower in self.followers:
                follower.ask()
            self.client.flow(SIZES[n % 5])
            for _ in range(len(self.client.reads)):
                self.client.answer(SIZES[n % 5])
        self.clock.advance(0.1)

    def stream(self, n: int) -> None:
        self.client.flow(SIZES[n % 5])

    def answer(self, n: int) -> None:
        if self.client.reads:
            self.client.answer(SIZES[n % 5])

    def wait(self, n: int) -> None:
        self.clock.advance((0.1, 1.0, 2.0)[n % 3])

    def end(self, n: int) -> None:
        """The job ends on its worker, in some way or other: whole, the last bytes not kept, lost, or damaged later."""
        if n % 4 or not self.running:
            return
        how = ("whole", "whole", "cut", "lost", "damaged")[n // 4 % 5]
        if how in ("cut", "lost"):
            self.written[OUT] += b"more"
        sizes = {stream: len(self.client.spools["j-1", stream].data) for stream in Stream}
        self.status = JobStatus(
            "j-1",
            JobState.LOST if how == "lost" else JobState.SUCCEEDED,
            "no record" if how == "lost" else "",
            finished_at=1001.0,
            stdout_bytes=sizes[Stream.STDOUT],
            stderr_bytes=sizes[Stream.STDERR],
            output_error="stdout: full" if how == "cut" else "",
        )
        worker = self.house.worker("w-1")
        for key in (OUT, ERR):
            spool = self.client.spools[key]
            spool.ended = True
            spool.cut = how if how in ("cut", "lost") and worker.features else ""
        if how == "damaged":  # nobody has read so far yet: what was read must be a prefix of what there is
            out = self.client.spools[OUT]
            reached = max((f.start + len(f.got) for f in self.followers if f.key == OUT), default=0)
            reached = max([reached, *(stream.offset for stream in self.client.streams if stream.key == OUT)])
            out.data = out.data[: max(reached, len(out.data) - 7)]
            out.cut = "damaged" if worker.features and len(out.data) < sizes[Stream.STDOUT] else ""

    def report(self, n: int) -> None:
        """The scheduler is told of the end; of a worker of another make perhaps not how much was written."""
        job = self.house.job("j-1")
        if self.status is None or job.state.final:
            return
        job = lifecycle.reported(job, self.status, 1002.0)
        worker = self.house.worker("w-1")
        if n % 3 == 0 and worker.features:
            job = evolve(job, stdout_bytes=None, stderr_bytes=None)
        self.house.add(job)

    def disconnect(self, n: int) -> None:
        self.set_worker(WorkerState.UNREACHABLE)
        self.client.go_down()

    def restart(self, n: int) -> None:
        """The worker restarts so fast that the scheduler does not notice."""
        self.client.go_down()

    def come_back(self, n: int) -> None:
        self.set_worker(WorkerState.ONLINE)

    def cut(self, n: int) -> None:
        causes = (None, Unreachable("w-1"), DeadlineExceeded("it", 1.0), Busy("it", 1), WorkerFault("w-1", "oh"))
        running = self.client.running()
        if running:
            running[n % len(running)].cut(causes[n % len(causes)])

    def skew(self, n: int) -> None:
        free = [stream for stream in self.client.running() if not stream.held]
        if free:
            stream = free[n % len(free)]
            stream.send(Chunk(b"wrong", stream.offset + (-3, -1, 1, 5)[n % 4]))

    def fail_read(self, n: int) -> None:
        if self.client.reads:
            self.client.fail_read((Unreachable("w-1"), WorkerFault("w-1", "oh"))[n % 2])

    def set_worker(self, state: WorkerState) -> None:
        self.house.add(self.house.worker("w-1"), online=state is WorkerState.ONLINE)

    def check(self) -> None:
        for follower in self.followers:
            spool = self.client.spools[follower.key]
            assert spool.data[follower.start :].startswith(follower.got), "not a prefix"
            assert not follower.ended or (spool.ended and follower.start + len(follower.got) == len(spool.data))
            assert not follower.ended or follower.cut or spool.data == self.written[follower.key], "a part as the whole"
        running = [stream.key for stream in self.client.running()]
        assert len(running) == len(set(running)), "two streams for one output"
        assert set(running) <= {follower.key for follower in self.followers}, "a stream for nobody"
        followed = {follower.key for follower in self.followers}
        assert self.outputs.bytes_held <= WINDOW * len(followed), "too much in memory"

    def behind(self, follower: Follower) -> int:
        return len(self.client.spools[follower.key].data) - follower.start - len(follower.got)

    def settle(self, content: Callable[[Follower], bool]) -> None:
        for _ in range(400):
            if all(follower.failures or content(follower) for follower in self.followers):
                return
            self.read_fast(4)
            self.clock.advance(0.5)
        raise AssertionError(f"somebody waits for ever: {self.followers}")

    def come_to_rest(self) -> None:
        """Without further failures each follower gets everything, and the end once the job has ended."""
        self.come_back(0)
        self.settle(lambda follower: not self.behind(follower))
        self.end(0)
        self.report(1)
        self.settle(lambda follower: follower.ended)
        self.check()
        for follower in self.followers:
            # Who has got nothing yet is told at once that a worker is busy, or that an ended job can't be read
            # now; and who waits long enough, that the worker answers with faults.
            told = all(
                reason.check(WorkerFault) or (not follower.got and reason.check(Busy, Unreachable))
                for reason in follower.failures
            )
            assert follower.ended or (follower.failures and told), follower
            assert self.status is not None
            whole = not self.status.output_error and self.status.state is not JobState.LOST
            whole = whole and self.client.spools[OUT].data == self.written[OUT]
            assert not (whole and follower.cut), f"all is there, and yet: {follower.cut}"
            follower.reader.close()
        assert not self.client.running(), "a stream for nobody"
        assert self.outputs.idle
        assert not self.house.timers()


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=150, database=None)
    @given(st.integers(0, 9), st.binary(min_size=3 * 50, max_size=3 * 150))
    def test_assembled_is_the_spool(self, seed: int, events: bytes) -> None:
        """Each follower gets its stream from its offset on, in order and whole, in bounded memory, by one stream.

        What it is told to be the end is the end of all that the job wrote, or is ``cut``.
        """
        world = World(seed)
        for at in range(0, len(events) - 2, 3):  # bytes, as to draw each event takes longer than the event
            event, n = events[at], int.from_bytes(events[at + 1 : at + 3], "big")
            getattr(world, World.EVENTS[event % len(World.EVENTS)])(n % 500)
            world.check()
        world.come_to_rest()
