"""What followers assemble is what the spool holds, whatever happens meanwhile."""

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

from scheduler.cluster.output import Outputs
from scheduler.cluster.registry import Registry
from scheduler.errors import Busy, DeadlineExceeded, Unreachable, WorkerFault
from scheduler.interfaces import IOutputReader
from scheduler.model import Chunk, JobState, Stream, WorkerState
from tests.unit.cluster.spooled import SpooledClient
from tests.unit.cluster.values import a_job, a_worker

WINDOW = 64
OUT, ERR = ("j-1", Stream.STDOUT), ("j-1", Stream.STDERR)
#: A few bytes, parts of the window, all of it, and more.
SIZES = (1, 5, 20, 30, 70, 200)


@define
class Follower:
    """Collects what its reader gives."""

    reader: IOutputReader
    key: tuple[str, Stream]
    start: int
    got: bytes = b""
    asking: bool = False
    ended: bool = False
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
        self.asking = False
        self.got += chunk.data
        self.ended = chunk.end

    def failed(self, reason: Failure) -> None:
        self.asking = False
        self.failures.append(reason)


class World:
    """A job that writes, its worker that comes and goes, and followers that join, read, dawdle and leave.

    Each method whose name is in ``EVENTS`` makes something happen; ``n`` chooses its details.
    """

    EVENTS = (
        *("write", "write", "write_much", "write_much", "join", "join", "leave", "end"),
        *("read_fast", "read_fast", "read_some", "read_some", "read_one", "read_one", "stream", "stream", "answer"),
        *("wait", "disconnect", "come_back", "come_back", "restart", "cut", "skew", "fail_read"),
    )

    def __init__(self, seed: int) -> None:
        self.clock = Clock()
        self.client = SpooledClient()
        self.registry = Registry()
        self.registry.put_worker(a_worker())
        self.registry.put_job(a_job())
        self.outputs = Outputs(self.clock, self.client, self.registry, WINDOW)
        self.followers: list[Follower] = []
        self.random = random.Random(seed)

    @property
    def running(self) -> bool:
        return self.registry.job("j-1").state is JobState.RUNNING

    def write(self, n: int) -> None:
        if self.running:
            self.client.spools[ERR if n % 4 == 0 else OUT].data += self.random.randbytes(SIZES[n % len(SIZES)])

    def write_much(self, n: int) -> None:
        if self.running:
            self.client.spools[OUT].data += self.random.randbytes(n)

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
        """The fast ones read on and on, what they want comes; every third is left behind."""
        for _ in range(5):
            for follower in self.followers[::3] + self.followers[1::3]:
                follower.ask()
            self.client.flow(SIZES[n % 5])
            for _ in range(len(self.client.reads)):
                self.client.answer(SIZES[n % 5])

    def read_fast(self, n: int) -> None:
        """All read what there is, while a little time passes."""
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
        """The job ends, and its worker may have told how long its output is."""
        if n % 5 or not self.running:
            return
        self.client.spools[OUT].ended = self.client.spools[ERR].ended = True
        told = n % 2 == 0
        job = evolve(
            self.registry.job("j-1"),
            state=JobState.SUCCEEDED,
            finished_at=1001.0,
            stdout_bytes=len(self.client.spools[OUT].data) if told else None,
            stderr_bytes=len(self.client.spools[ERR].data) if told else None,
        )
        self.registry.put_job(job)
        self.outputs.job_changed(job)

    def disconnect(self, n: int) -> None:
        self.set_worker(WorkerState.UNREACHABLE)
        self.client.go_down()

    def restart(self, n: int) -> None:
        """Faster than anybody noticed."""
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
        worker = self.registry.find_worker("w-1")
        assert worker is not None
        self.registry.put_worker(evolve(worker, state=state))
        self.outputs.worker_changed("w-1")

    def check(self) -> None:
        for follower in self.followers:
            spool = self.client.spools[follower.key]
            assert spool.data[follower.start :].startswith(follower.got), "not a prefix"
            assert not follower.ended or (spool.ended and follower.start + len(follower.got) == len(spool.data))
        running = [stream.key for stream in self.client.running()]
        assert len(running) == len(set(running)), "two streams for one output"
        assert set(running) <= {follower.key for follower in self.followers}, "a stream for nobody"
        for tails in self.outputs._tails.values():
            for tail in tails.values():
                assert sum(map(len, tail.window._blocks)) <= WINDOW, "too much in memory"

    def behind(self, follower: Follower) -> int:
        return len(self.client.spools[follower.key].data) - follower.start - len(follower.got)

    def settle(self, content: Callable[[Follower], bool]) -> None:
        for _ in range(400):
            if all(follower.failures or content(follower) for follower in self.followers):
                return
            self.read_fast(3)
            self.clock.advance(0.5)
        raise AssertionError(f"somebody waits for ever: {self.followers}")

    def come_to_rest(self) -> None:
        """Nothing bad happens any more: everyone gets everything, and once the job has ended, the end."""
        self.come_back(0)
        self.settle(lambda follower: not self.behind(follower))
        self.end(0)
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
            follower.reader.close()
        assert not self.client.running(), "a stream for nobody"
        assert not self.outputs._tails
        assert not self.clock.getDelayedCalls()


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None, database=None)
    @given(
        st.integers(0, 9),
        st.lists(st.tuples(st.sampled_from(World.EVENTS), st.integers(0, 499)), min_size=50, max_size=150),
    )
    def test_assembled_is_the_spool(self, seed: int, events: list[tuple[str, int]]) -> None:
        """Each follower gets its stream from its offset on, in order and whole, in bounded memory, by one stream."""
        world = World(seed)
        for event, n in events:
            getattr(world, event)(n)
            world.check()
        world.come_to_rest()
