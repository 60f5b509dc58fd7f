"""Real jobs in tests: a job runner with threads, zygote and state folder, which can be dropped like a dead worker."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from scheduler.messages import JobStatus
from scheduler.model import JobSpec, Stream
from scheduler.names import is_id
from scheduler.threads import Pool
from scheduler.units import parse_share
from scheduler.worker.commands import Policy
from scheduler.worker.jobs import Jobs
from scheduler.worker.launcher import Launcher
from scheduler.worker.life import JobLives
from scheduler.worker.retention import RetentionLimits
from scheduler.worker.runner import JobRunner
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import ProcessId, Spool
from scheduler.worker.spools import Spools
from scheduler.worker.starting import Starter
from scheduler.worker.used_ids import UsedIds
from scheduler.worker.watch import OutputWatch

DAY = 86400.0

#: Kept short: a job that ignores TERM is waited for this long.
GRACE = 0.5

#: A job that ends with 3 when it is told to, by ``Running.tell``.
UNTIL_TOLD = "while [ ! -e told ]; do sleep 0.02; done; exit 3"

_STAY = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"%d\\n" % os.getpid())
while True:
    signal.pause()
"""


def stubborn(environment: str = "{}", main: str = "stay()") -> str:
    """Python for three processes that ignore TERM and say who they are.

    One is in the job's session, one left it by setsid; the third did so too, after a
    double fork, and has another ``environment``. What the first does is ``main``.
    """
    return f"""
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def stay():
    exec({_STAY!r})
middle = os.fork()
if not middle:
    os.setsid()
    if not os.fork():
        os.execve(sys.executable, [sys.executable, "-c", {_STAY!r}], {environment})
    os._exit(0)
if not os.fork():
    os.setsid()
    stay()
os.waitpid(middle, 0)
{main}
"""


def wall_time() -> float:
    return time.time()


class Running:
    """The job runner of one worker process."""

    def __init__(
        self,
        state_dir: str,
        keep_spool: float = DAY,
        wall_time: Callable[[], float] = wall_time,
        output_limit: int | None = None,
        spool_max: str = "100%",
        spool_min_free: str = "0%",
        umask: int = 0o022,
    ) -> None:
        policy = Policy(scripts_dir=os.path.join(state_dir, "scripts"), scripts_only=False, allowed_commands=("*",))
        self.jobs_dir = os.path.join(state_dir, "jobs")
        self.log = os.path.join(state_dir, "shims.log")
        self.pool = Pool(reactor, "jobs", 8)
        self.launcher = Launcher(self.log)
        self.watch = OutputWatch(reactor)
        limits = RetentionLimits(keep_spool, parse_share(spool_max), parse_share(spool_min_free))
        self.used = UsedIds(os.path.join(state_dir, "used-ids"))
        self.spools = Spools(self.jobs_dir, self.used, wall_time)
        self.starter = Starter(
            self.spools, self.used, policy, self.launcher, wall_time, limits.spool_min_free, output_limit, umask
        )
        self.jobs = Jobs(reactor, self.pool, self.spools, limits)
        lives = JobLives(reactor, self.pool, self.spools, self.starter, wall_time, self.jobs)
        self.runner = JobRunner(reactor, self.pool, self.spools, self.watch, wall_time, self.jobs, lives)
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._up = False

    async def begin(self) -> None:
        self.pool.startService()
        self._up = True
        await self.runner.recover()
        self.jobs.on_end(self._look)

    async def drop(self) -> None:
        """End as a worker process does: by letting go of everything."""
        if self._up:
            self._up = False
            self.runner.shut_down()
            self.launcher.close()
            self.watch.close()
            await self.pool.stopService()
            self.used.close()

    def spool(self, job_id: str) -> Spool:
        return self.spools.spool(job_id)

    def shim(self, job_id: str) -> ProcessId:
        """Answer the shim of a job that was started."""
        found = self.spool(job_id).begun_by()
        assert found is not None
        return found

    async def start(self, *command: str, job_id: str = "", **spec: object) -> str:
        """The id of a job that runs, or has ended."""
        fields = {"command": command[0], "args": command[1:], "stop_grace": GRACE} if command else {"stop_grace": GRACE}
        status = await self.runner.start(job_id, JobSpec(**{**fields, **spec}), None)
        return status.job_id

    async def run(self, *command: str, **spec: object) -> JobStatus:
        """The end of a job that ends."""
        return await self.ended(await self.start(*command, **spec))

    def tell(self, job_id: str) -> None:
        """Let a job that runs ``UNTIL_TOLD`` end."""
        with open(os.path.join(self.spool(job_id).work, "told"), "xb"):
            pass

    async def ended(self, job_id: str) -> JobStatus:
        await self._until(lambda: self.runner.query(job_id).state.final)
        return self.runner.query(job_id)

    async def lines(self, job_id: str, count: int) -> list[bytes]:
        """The job's output, once it has so many lines."""
        remove = await self.runner.watch_output(job_id, Stream.STDOUT, self._look)
        await self._until(lambda: self.output(job_id).count(b"\n") >= count)
        remove()
        return self.output(job_id).splitlines()

    def output(self, job_id: str, stream: Stream = Stream.STDOUT) -> bytes:
        data = b""
        while chunk := self.runner.read_output_thd(job_id, stream, len(data), 1 << 20).data:
            data += chunk
        return data

    def _until(self, true: Callable[[], bool]) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        self._waiting.append((true, deferred))
        self._look()
        return deferred

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class RunningCase(TestCase):
    """Has a state folder and the first life of a runner."""

    timeout = 60

    async def setUp(self) -> None:
        self.state_dir = os.path.abspath(self.mktemp())
        os.mkdir(self.state_dir)
        self.worker = await self.next_life()

    async def next_life(self, **settings: object) -> Running:
        worker = Running(self.state_dir, **settings)
        self.addCleanup(self._end, worker)
        await worker.begin()
        return worker

    async def restart(self, **settings: object) -> None:
        """Drop the worker, and begin its next life."""
        await self.worker.drop()
        self.worker = await self.next_life(**settings)

    async def _end(self, worker: Running) -> None:
        await worker.drop()
        for job_id in filter(is_id, os.listdir(worker.jobs_dir)):
            shim = worker.spool(job_id).begun_by()
            if shim is not None:  # with the shim, its zygote kills the job
                proctree.send(shim, signal.SIGKILL)
                for each in proctree.of_spool(worker.spool(job_id).folder, 0):
                    proctree.send(each.identity, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError), open(worker.log, encoding="utf-8") as log:
            self.assertEqual(log.read(), "")


def ask(process: subprocess.Popen[bytes], job_id: str, *command: str) -> None:
    """Have a worker in a process of its own start a job."""
    process.stdin.write(json.dumps([job_id, *command]).encode() + b"\n")
    process.stdin.flush()


class ProcessCase(RunningCase):
    """Has workers in processes of their own."""

    def process(self, failpoints: str = "") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.worker_process", self.state_dir],
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SCHEDULER_FAILPOINTS": failpoints},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


def edit(path: str, **fields: object) -> None:
    """Change a record."""
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record | fields, file)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    found = proctree.process(pid)
    return found is None or found.ended


def later(seconds: float) -> Deferred[None]:
    """For what nothing tells of: the state of processes that are not ours."""
    deferred: Deferred[None] = Deferred()
    reactor.callLater(seconds, deferred.callback, None)
    return deferred


async def gone(*pids: int) -> None:
    """Once all have ended."""
    while not all(map(is_gone, pids)):
        await later(0.01)


def catches(pid: int, number: int) -> bool:
    """Whether that process has a handler for the signal; ``False`` of one that is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            (caught,) = (line.split()[1] for line in status if line.startswith("SigCgt:"))
    except OSError:
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


async def ready_shim(worker: Running) -> int:
    """The process that waits for the next job, once it catches the signals that it is to survive."""
    busy = {worker.spool(name).begun_by() for name in os.listdir(worker.jobs_dir)}
    while True:
        for each in proctree.alive():
            new = each.parent == worker.launcher.pid and each.identity not in busy
            if new and catches(each.pid, signal.SIGTERM):
                return each.pid
        await later(0.01)
