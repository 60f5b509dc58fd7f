"""Everything that can go wrong, as one tree of exceptions.

They carry data and no status codes: ``scheduler.api.errors`` maps them to HTTP,
``scheduler.rpc.status`` to gRPC, each in one table. ``retryable`` says whether
the same request, unchanged, can succeed later.
"""

from __future__ import annotations


class SchedulerError(Exception):
    """The root; ``str()`` of any of them is a sentence fit for the client."""

    retryable = False


class Invalid(SchedulerError):
    """A value from outside that is not what it must be."""

    def __init__(self, field: str, problem: str) -> None:
        """``field`` is its name as the sender knows it; ``problem`` says what it is and what is allowed."""
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFound(SchedulerError):
    """No such ``kind``: ``"worker"``, ``"job"`` or ``"output of job"``."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} not found")
        self.kind = kind
        self.name = name


class Conflict(SchedulerError):
    """The request contradicts the present state, and waiting will not mend it."""


class Draining(Conflict):
    """The named worker takes no new jobs."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker!r} is draining and takes no new jobs")
        self.worker = worker


class NoMatch(Conflict):
    """No worker has the labels that a selector asks for, or none of those can do what the job asks for."""


class NameTaken(Conflict):
    """Another worker that is online has that name, or it is the id of something else."""


class WorkerOnline(Conflict):
    """A worker that is to be forgotten is online."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker!r} is online; stop it first")
        self.worker = worker


class JobNotRunning(Conflict):
    """A signal is for a job that is not running; ``state`` is the one it is in."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} is not running: it is {state}")
        self.job_id = job_id
        self.state = state


class JobNotEnded(Conflict):
    """Only a job that has ended can be removed; ``state`` is the one it is in."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} has not ended: it is {state}; stop it first")
        self.job_id = job_id
        self.state = state


class Refused(SchedulerError):
    """The asker may not have that, whoever else may."""


class Unsupported(SchedulerError):
    """The worker lacks a capability."""

    def __init__(self, worker: str, capability: str) -> None:
        super().__init__(f"worker {worker!r} does not support {capability}")
        self.worker = worker
        self.capability = capability


class WorkerFault(SchedulerError):
    """The worker answered, with a fault of its own."""

    def __init__(self, worker: str, detail: str) -> None:
        super().__init__(f"worker {worker!r} answered with a fault: {detail}")
        self.worker = worker
        self.detail = detail


class AnswerUnreadable(WorkerFault):
    """An answer came that can't be read: it is too large, or garbled. What was asked for may have been done."""


class KeyReused(SchedulerError):
    """An idempotency key came with another request than the first time."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key!r} was used for another request")
        self.key = key


class JobRemoved(SchedulerError):
    """A client removed the job that this idempotency key started."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the job of this Idempotency-Key, {job_id!r}, was removed")
        self.job_id = job_id


class OutputPruned(SchedulerError):
    """A job's output is no longer kept by its worker."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the output of job {job_id!r} is no longer kept")
        self.job_id = job_id


class OutputGone(SchedulerError):
    """Nobody has a job's output any more: the job is lost without a trace, or its worker was forgotten."""

    def __init__(self, job_id: str, reason: str) -> None:
        """``reason`` is a sentence about the job or its worker."""
        super().__init__(f"the output of job {job_id!r} is gone: {reason}")
        self.job_id = job_id
        self.reason = reason


class OutputCut(SchedulerError):
    """A job wrote more than was kept: behind what there is of its output something is missing."""

    def __init__(self, job_id: str, reason: str) -> None:
        """``reason`` is the job's ``output_error``."""
        super().__init__(f"the output of job {job_id!r} was cut: {reason}")
        self.job_id = job_id
        self.reason = reason


class LeftRunning(SchedulerError):
    """A stop left processes behind that could not be ended; ``leftover`` are their ids, ``reason`` a sentence."""

    def __init__(self, job_id: str, leftover: tuple[int, ...], reason: str) -> None:
        super().__init__(f"job {job_id!r} is not stopped: {reason}")
        self.job_id = job_id
        self.leftover = leftover
        self.reason = reason


class OffsetBeyondEnd(SchedulerError):
    """An output offset past the ``size`` bytes there are."""

    def __init__(self, offset: int, size: int) -> None:
        super().__init__(f"offset {offset} is past the end: the stream has {size} bytes")
        self.offset = offset
        self.size = size


class DeadlineExceeded(SchedulerError):
    """No answer in time; what was asked may have happened. ``job_id`` is set when that was a start."""

    retryable = True

    def __init__(self, what: str, seconds: float, job_id: str | None = None) -> None:
        super().__init__(f"{what}: no answer within {seconds:g} s")
        self.what = what
        self.seconds = seconds
        self.job_id = job_id


class StartUnanswered(SchedulerError):
    """A start was sent and its answer was lost, or could not be saved: nobody can say yet whether the job runs."""

    retryable = False

    def __init__(self, worker: str, job_id: str, why: str = "") -> None:
        """``why`` says what came in place of an answer, where something did."""
        what = f"the start of job {job_id!r} on worker {worker!r} failed ({why})"
        super().__init__(
            f"{what if why else f'worker {worker!r} did not answer the start of job {job_id!r}'}; "
            "the job's state is unknown until it reports"
        )
        self.worker = worker
        self.job_id = job_id


class Unavailable(SchedulerError):
    """Not now; ``retry_after`` is a hint in seconds."""

    retryable = True

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(Unavailable):
    """A worker, or of a worker its scheduler, can't be reached.

    ``sent`` tells whether the request may have arrived all the same.
    """

    def __init__(self, name: str, sent: bool = False, kind: str = "worker", reason: str = "") -> None:
        """``reason`` says why, in a few words that end a sentence: ``connection refused``; ``""``: it is not known."""
        super().__init__(f"{kind} {name!r} can't be reached" + (reason and f": {reason}"))
        self.name = name
        self.sent = sent
        self.kind = kind
        self.reason = reason


#: The reason of ``Misdirected``.
ANOTHER_PROCESS = "another process answers at its address"


class Misdirected(Unreachable):
    """A call reached another process than the one it was meant for, which did nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name, reason=ANOTHER_PROCESS)


class NotAWorker(Unreachable):
    """The program at a worker's address lacks ``method``, which every worker has. Nothing ran."""

    def __init__(self, name: str, method: str) -> None:
        super().__init__(name, reason=f"it answers {method} with UNIMPLEMENTED: it is no worker")
        self.method = method


class NoFreeSlot(Unavailable):
    """Workers match, and each has all its slots taken or can't be reached now."""


class QueueFull(Unavailable):
    """As many jobs wait for a free slot as may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are queued, and no more may be", retry_after=10)
        self.limit = limit


class KeyInUse(Unavailable):
    """The first request with this idempotency key has not been answered yet."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the first request with Idempotency-Key {key!r} is still under way", retry_after=1)
        self.key = key


class KeyUnsettled(Unavailable):
    """The database was set back, and it is not known yet whether this idempotency key was used."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the database was set back, and workers have yet to tell whether the request with Idempotency-Key {key!r} "
            "was carried out"
        )
        self.key = key


class Busy(Unavailable):
    """A limit on work in flight is reached."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what}: all {limit} in use", retry_after=1)
        self.what = what
        self.limit = limit


class StoreFailed(Unavailable):
    """The store did not commit; nothing was started or acknowledged. ``str()`` is why: what the store says."""

    @staticmethod
    def sentence(why: str) -> str:
        """What people are told of it."""
        return f"the store fails: {why}"


class ShuttingDown(Unavailable):
    """This process is stopping and takes no new work."""

    def __init__(self) -> None:
        super().__init__("shutting down")
