"""A machine: its address, its clock, the state folders on its disk, and its running jobs.

A job runs under its shim, which needs no worker process. The shim belongs to the machine and ends with it, and its
results are in the state folder. Every run is kept in ``History.runs``: the truth by which the scheduler is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from signal import Signals, strsignal

from attrs import define, evolve, field, frozen

from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState, Stream, Usage
from scheduler.request_keys import RequestKey
from tests.simulation.loop import Loop, Timer
from tests.simulation.trace import Trace

#: POSIX time when the loop's time is 0.
EPOCH = 1_700_000_000.0

#: Bytes of each line of output.
LINE = 16

#: The usage of a job that ran.
USAGE = Usage(1 << 20, 0.01)

#: The only existing command.
COMMAND = "work"


@define(eq=False)
class Run:
    """A run of a job's command: it began, whatever any party was told."""

    job_id: str
    machine: str
    #: Times by the loop's clock; ``None``: it has not ended.
    began: float
    ended: float | None = None
    code: int | None = None
    signal: str | None = None
    #: The reason if it did not end by itself: ``rebooted``, or another fault of its machine.
    destroyed: str = ""
    #: Its duration in seconds, and the number of lines that it writes in that time, evenly.
    seconds: float = 0.0
    writes: int = 0
    #: The names of the signals that clients sent to it, in order.
    signals: list[str] = field(factory=list)

    def lines(self, now: float) -> int:
        """The number of lines written at ``now``, by the loop's clock."""
        passed = (now if self.ended is None else min(now, self.ended)) - self.began
        if passed >= self.seconds:
            return self.writes
        return int(self.writes * passed / self.seconds + 1e-6)

    def next_line_at(self, now: float) -> float | None:
        """The time of its next line; ``None``: it writes no more."""
        lines = self.lines(now)
        if self.ended is not None or lines >= self.writes:
            return None
        return self.began + (lines + 1) * self.seconds / self.writes


@define(eq=False)
class Spool:
    """The folder of a job: its durable state."""

    job_id: str
    spec: JobSpec
    created_at: float
    boot_id: str
    #: The key of the job's request.
    key: RequestKey | None = None
    stop_asked: bool = False
    #: Whether the shim has begun the job.
    begun: bool = False
    started_at: float | None = None
    exit: JobStatus | None = None
    acknowledged: bool = False
    #: Not part of the folder: whether the present process was asked to report the end once more.
    awaited: bool = False
    #: Lines of output that are on the disk, for a destroyed job.
    kept: int = 0
    #: The scheduler's id for it, if ``job_id`` is the worker's own; the worker does not know it.
    known_as: str = ""
    #: Not part of the folder: the present run, if the job's shim lives.
    run: Run | None = None


@define(eq=False)
class Folder:
    """The state folder of a worker: its id, its spools, and the used ids, each with the reason."""

    worker_id: str = ""
    #: The highest count that a scheduler told it.
    commit_count: int = 0
    #: The folder id.
    folder_id: str = ""
    #: Whether it is gone with its disk, and the worker has another one.
    lost: bool = False
    #: Whether it was copied from another worker's folder, whose id it has.
    copied: bool = False
    #: Whether it was a copy, and has an id of its own.
    renewed: bool = False
    #: Whether a copy was taken for the original worker.
    taken: bool = False
    spools: dict[str, Spool] = field(factory=dict)
    used: dict[str, str] = field(factory=dict)
    #: Present faults that leave no room for ended jobs.
    evictions: dict[object, None] = field(factory=dict)

    def evict(self, spool: Spool) -> None:
        """Remove an ended job if there is no room, unless its end is not acknowledged."""
        going = self.evictions and spool.acknowledged and not spool.awaited
        if going and self.spools.pop(spool.job_id, None) is not None:
            self.used[spool.job_id] = "pruned"

    def clone(self) -> Folder:
        """A copy, as in a machine's image: no shim has any of its jobs."""
        spools = {job_id: evolve(spool, run=None, awaited=False) for job_id, spool in self.spools.items()}
        return Folder(
            self.worker_id, self.commit_count, self.folder_id, copied=True, spools=spools, used=dict(self.used)
        )

    def renew(self) -> None:
        """Give the folder an id of its own, like ``--new-id``: the copied jobs are set aside."""
        self.worker_id = self.folder_id = ""
        self.commit_count = 0
        self.copied, self.renewed = False, True
        self.spools, self.used = {}, {}


@frozen
class Plan:
    """The behaviour of a simulated job, as in its spec: the command ``work`` with the path ``SECONDS CODE LINES``.

    A core worker is told only a command and a path.
    """

    seconds: float
    code: int
    lines: int

    @classmethod
    def of(cls, spec: JobSpec) -> Plan:
        """The plan in a spec."""
        seconds, code, lines = spec.path.split()
        return cls(float(seconds), int(code), int(lines))

    def spec(self, **more: object) -> JobSpec:
        """The spec for this plan."""
        return JobSpec(command=COMMAND, path=f"{self.seconds:g} {self.code} {self.lines}", **more)


def output(job_id: str, lines: int) -> bytes:
    """The first lines that a job writes."""
    return b"".join(f"{job_id[:8]:8} {number:06d}\n".encode() for number in range(lines))


class OutputWatch:
    """Notifies about each line of a job as it is written, like inotify, and about the end of the job."""

    def __init__(self, loop: Loop, spool: Spool, notify: Callable[[], None]) -> None:
        self.spool = spool
        self._loop = loop
        self._notify = notify
        self._timer: Timer | None = None
        self._wait()

    def _wait(self) -> None:
        run = self.spool.run
        at = None if run is None else run.next_line_at(self._loop.now)
        self._timer = None if at is None else self._loop.at(at, self._grown)

    def _grown(self) -> None:
        self._wait()
        self._notify()

    def ended(self) -> None:
        """No more lines come."""
        self.stop()
        self._notify()

    def stop(self) -> None:
        """Notify no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class Machine:
    """A machine. ``runs`` is called with each run; ``clock_error``: seconds by which its wall clock is ahead."""

    def __init__(self, loop: Loop, trace: Trace, name: str, address: str, runs: Callable[[Run], None]) -> None:
        self.loop = loop
        self.name = name
        #: Its IP address.
        self.address = address
        #: Whether it runs. If not, it has no address, and nothing is started on it.
        self.on = True
        self.clock_error = 0.0
        #: Why it can start nothing now; ``""``: it can.
        self.shortage = ""
        self._trace = trace
        self._runs = runs
        self._boots = 1
        self._shims: dict[str, tuple[Spool, Run, Timer, Callable[[], None]]] = {}
        #: job id -> watches that are notified when the job's output grows, or the job ends
        self._watches: dict[str, dict[OutputWatch, None]] = {}

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self._boots}"

    def wall_time(self) -> float:
        """POSIX time by its clock."""
        return EPOCH + self.loop.now + self.clock_error

    def begin(self, spool: Spool, ended: Callable[[], None]) -> None:
        """A shim begins the job; ``ended`` is called at its end, unless ``follow`` replaces it."""
        plan = Plan.of(spool.spec)
        run = spool.run = Run(
            spool.known_as or spool.job_id, self.name, self.loop.now, seconds=plan.seconds, writes=plan.lines
        )
        spool.begun = True
        spool.started_at = self.wall_time()
        self._runs(run)
        self._trace.add(self.name, f"job {run.job_id} begins, for {plan.seconds:g} s, to exit with {plan.code}")
        timer = self.loop.after(plan.seconds, self.exits, spool.job_id, plan.code, None)
        self._shims[spool.job_id] = (spool, run, timer, ended)

    def runs_job(self, spool: Spool) -> bool:
        """Whether a shim on this machine has the job."""
        return self._shims.get(spool.job_id, (None,))[0] is spool

    def follow(self, spool: Spool, ended: Callable[[], None]) -> None:
        """Notify another process of the end."""
        _, run, timer, _ = self._shims[spool.job_id]
        self._shims[spool.job_id] = (spool, run, timer, ended)

    def kill(self, job_id: str, signal: str) -> None:
        """Send its main process a signal, by which it ends a moment later."""
        if job_id in self._shims:
            self.loop.after(0.01, self.exits, job_id, None, signal)

    def signal(self, job_id: str, signal: str) -> None:
        """A client sends the job a signal; only KILL ends it."""
        shim = self._shims.get(job_id)
        if shim is not None:
            shim[1].signals.append(signal)
            if signal == "SIGKILL":
                self.kill(job_id, signal)

    def exits(self, job_id: str, code: int | None, signal: str | None) -> None:
        if job_id not in self._shims:
            return
        spool, run, timer, ended = self._shims.pop(job_id)
        if timer.active():
            timer.cancel()
        run.ended, run.code, run.signal = self.loop.now, code, signal
        size = len(self.output(spool, Stream.STDOUT))
        spool.run = None
        spool.exit = self._ended(spool, run, size)
        self._trace.add(self.name, f"job {run.job_id} ends with {code if signal is None else signal}")
        ended()
        self._tell_watches(job_id)

    def _ended(self, spool: Spool, run: Run, size: int) -> JobStatus:
        state = JobState.SUCCEEDED if run.code == 0 else JobState.FAILED
        reason = f"exit status {run.code}" if run.code else ""
        if spool.stop_asked:
            state, reason = JobState.STOPPED, reason or "stopped"
        if run.signal is not None:
            reason = f"signal: {(strsignal(Signals[run.signal]) or run.signal).lower()}"
        return JobStatus(
            spool.job_id,
            state,
            reason,
            started_at=spool.started_at,
            finished_at=self.wall_time(),
            exit_code=run.code,
            signal=run.signal,
            stdout_bytes=size,
            stderr_bytes=0,
            usage=USAGE,
            tree="exited" if run.signal is None else "terminated",
        )

    def output(self, spool: Spool, stream: Stream) -> bytes:
        """The job's output until now."""
        return output(spool.job_id, self.lines(spool)) if stream is Stream.STDOUT else b""

    def lines(self, spool: Spool) -> int:
        """The number of lines of output until now."""
        if spool.exit is not None:
            return spool.kept if spool.exit.stdout_bytes is None else spool.exit.stdout_bytes // LINE
        return spool.kept if spool.run is None else spool.run.lines(self.loop.now)

    def watch(self, spool: Spool, notify: Callable[[], None]) -> OutputWatch:
        """Call ``notify`` when the output of a job grows, and when the job has ended."""
        watch = OutputWatch(self.loop, spool, notify)
        self._watches.setdefault(spool.job_id, {})[watch] = None
        return watch

    def unwatch(self, watch: OutputWatch) -> None:
        """End a watch."""
        watch.stop()
        watches = self._watches.get(watch.spool.job_id, {})
        watches.pop(watch, None)
        if not watches:
            self._watches.pop(watch.spool.job_id, None)

    def _tell_watches(self, job_id: str) -> None:
        for watch in list(self._watches.get(job_id, ())):
            watch.ended()

    def reboot(self) -> None:
        """Reboot: all running processes are gone, and the disk is unchanged."""
        self._boots += 1
        self.destroy("rebooted")

    def destroy(self, why: str, job_ids: Collection[str] | None = None) -> None:
        """End these jobs, or all running ones, so that their ends can't be known."""
        shims = {job_id: shim for job_id, shim in self._shims.items() if job_ids is None or job_id in job_ids}
        for job_id, (spool, run, timer, _) in shims.items():
            del self._shims[job_id]
            timer.cancel()
            run.ended, run.destroyed = self.loop.now, why
            spool.kept = run.lines(self.loop.now)
            spool.run = None
            self._tell_watches(spool.job_id)
            self._trace.add(self.name, f"job {run.job_id} is destroyed: {why}")
