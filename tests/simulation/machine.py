"""A machine: its address, its clock, the state folders on its disk, and the jobs that run on it.

A job runs under its shim, which needs no worker process: it is part of the machine and ends with it, and what it
leaves is in the state folder. All that ever ran is kept in ``History.runs``: the truth that the scheduler is judged by.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field

from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState
from tests.simulation.loop import Loop, Timer
from tests.simulation.trace import Trace

#: POSIX time when the loop says 0.
EPOCH = 1_700_000_000.0

#: Bytes of each line of output.
LINE = 16


@define(eq=False)
class Run:
    """One execution of a job's command: it began, whatever anybody was told."""

    job_id: str
    machine: str
    #: By the loop's clock; ``None``: it has not ended.
    began: float
    ended: float | None = None
    code: int | None = None
    signal: str | None = None
    #: What took it, where it did not end by itself: ``rebooted``, or what else befell its machine.
    destroyed: str = ""


@define(eq=False)
class Spool:
    """The folder of a job: what is durable about it."""

    job_id: str
    spec: JobSpec
    created_at: float
    boot_id: str
    stop_asked: bool = False
    #: The shim has begun the job.
    begun: bool = False
    started_at: float | None = None
    exit: JobStatus | None = None
    acknowledged: bool = False
    #: Not part of the folder: the job as it runs now, where its shim lives.
    run: Run | None = None


@define(eq=False)
class Folder:
    """The state folder of a worker: its id, its spools, and the ids that are used up, each with why."""

    worker_id: str = ""
    #: It is gone with its disk, and the worker has another one.
    lost: bool = False
    spools: dict[str, Spool] = field(factory=dict)
    used: dict[str, str] = field(factory=dict)

    def clone(self) -> Folder:
        """A copy, as of a machine's image: no shim has anything in it."""
        spools = {job_id: evolve(spool, run=None) for job_id, spool in self.spools.items()}
        return Folder(self.worker_id, spools=spools, used=dict(self.used))


@define(eq=False)
class Plan:
    """What a job of the simulation does, as its spec says: ``work SECONDS CODE LINES``."""

    seconds: float
    code: int
    lines: int

    @classmethod
    def of(cls, spec: JobSpec) -> Plan:
        """Read it."""
        return cls(float(spec.args[0]), int(spec.args[1]), int(spec.args[2]))

    def spec(self, **more: object) -> JobSpec:
        """Write it."""
        return JobSpec(command="work", args=(f"{self.seconds:g}", str(self.code), str(self.lines)), **more)


def output(job_id: str, lines: int) -> bytes:
    """The first lines that a job writes."""
    return b"".join(f"{job_id[:8]:8} {number:06d}\n".encode() for number in range(lines))


class Machine:
    """``runs`` is told of each run; ``clock_error`` is by how much its wall clock is ahead, in seconds."""

    def __init__(self, loop: Loop, trace: Trace, name: str, address: str, runs: Callable[[Run], None]) -> None:
        self.loop = loop
        self.name = name
        #: Its IP address.
        self.address = address
        #: It runs; else it has no address, and nothing is started on it.
        self.on = True
        self.clock_error = 0.0
        #: Why it can start nothing now; ``""``: it can.
        self.shortage = ""
        self._trace = trace
        self._runs = runs
        self._boots = 1
        self._shims: dict[str, tuple[Spool, Run, Timer, Callable[[], None]]] = {}

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self._boots}"

    def wall_time(self) -> float:
        """POSIX time, as its clock has it."""
        return EPOCH + self.loop.now + self.clock_error

    def begin(self, spool: Spool, ended: Callable[[], None]) -> None:
        """A shim begins the job; ``ended`` is called when it has ended, as long as ``follow`` sets no other."""
        plan = Plan.of(spool.spec)
        run = spool.run = Run(spool.job_id, self.name, self.loop.now)
        spool.begun = True
        spool.started_at = self.wall_time()
        self._runs(run)
        self._trace.add(self.name, f"job {spool.job_id} begins, for {plan.seconds:g} s, to exit with {plan.code}")
        timer = self.loop.after(plan.seconds, self._exit, spool.job_id, plan.code, None)
        self._shims[spool.job_id] = (spool, run, timer, ended)

    def runs_job(self, spool: Spool) -> bool:
        """Whether a shim on this machine has it."""
        return self._shims.get(spool.job_id, (None,))[0] is spool

    def follow(self, spool: Spool, ended: Callable[[], None]) -> None:
        """Tell another process of the end."""
        _, run, timer, _ = self._shims[spool.job_id]
        self._shims[spool.job_id] = (spool, run, timer, ended)

    def kill(self, job_id: str, signal: str) -> None:
        """Its main process gets a signal, and ends by it a moment later."""
        if job_id in self._shims:
            self.loop.after(0.01, self._exit, job_id, None, signal)

    def _exit(self, job_id: str, code: int | None, signal: str | None) -> None:
        if job_id not in self._shims:
            return
        spool, run, timer, ended = self._shims.pop(job_id)
        if timer.active():
            timer.cancel()
        run.ended, run.code, run.signal = self.loop.now, code, signal
        lines = self.lines(spool)
        spool.run = None
        spool.exit = self._ended(spool, run, lines)
        self._trace.add(self.name, f"job {job_id} ends with {code if signal is None else signal}")
        ended()

    def _ended(self, spool: Spool, run: Run, lines: int) -> JobStatus:
        state = JobState.SUCCEEDED if run.code == 0 else JobState.FAILED
        if spool.stop_asked:
            state = JobState.STOPPED
        reason = f"exit status {run.code}" if run.code else f"signal: {run.signal}" if run.signal else ""
        return JobStatus(
            spool.job_id,
            state,
            reason,
            started_at=spool.started_at,
            finished_at=self.wall_time(),
            exit_code=run.code,
            signal=run.signal,
            stdout_bytes=lines * LINE,
            stderr_bytes=0,
            tree="exited" if run.signal is None else "terminated",
        )

    def lines(self, spool: Spool) -> int:
        """How many lines of output there are now."""
        plan = Plan.of(spool.spec)
        if spool.exit is not None:
            return (spool.exit.stdout_bytes or 0) // LINE
        run = spool.run
        if run is None or not plan.lines:
            return 0
        passed = (run.ended if run.ended is not None else self.loop.now) - run.began
        return plan.lines if passed >= plan.seconds else int(plan.lines * passed / plan.seconds)

    def reboot(self) -> None:
        """All that ran is gone; the disk is as it was."""
        self._boots += 1
        self.destroy("rebooted")

    def destroy(self, why: str) -> None:
        """End all that runs, so that nobody can tell any more how it ended."""
        shims, self._shims = self._shims, {}
        for spool, run, timer, _ in shims.values():
            timer.cancel()
            run.ended, run.destroyed = self.loop.now, why
            spool.run = None
            self._trace.add(self.name, f"job {run.job_id} is destroyed: {why}")
