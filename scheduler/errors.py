"""All errors, as one tree of exceptions.

They carry data and no status codes. ``scheduler.api.errors`` maps them to HTTP, ``scheduler.rpc.status`` to gRPC, each
in one table. ``retryable`` says whether the same request, unchanged, can succeed later.
"""

from __future__ import annotations


class SchedulerError(Exception):
    """The root of the tree. ``str()`` of every error is a sentence that may be shown to clients."""

    retryable = False


class Invalid(SchedulerError):
    """A value from outside is not allowed."""

    def __init__(self, field: str, problem: str) -> None:
        """``field`` is the name that the sender uses; ``problem`` says what is wrong or what is allowed."""
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFound(SchedulerError):
    """There is no such ``kind``: ``"worker"``, ``"job"``, ``"output of job"`` or ``"token"``."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} not found")
        self.kind = kind
        self.name = name


class BeyondReach(NotFound):
    """The job is beyond the reach of the principal that asks, who is told the same as if there were none."""


class Conflict(SchedulerError):
    """The request contradicts the present state, and waiting does not change that."""


class Draining(Conflict):
    """The named worker takes no new jobs."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker!r} is draining and takes no new jobs")
        self.worker = worker


class NoMatch(Conflict):
    """No worker has the labels of the selector, or none of those that have them can do what the job needs."""


class NameTaken(Conflict):
    """Another online worker or valid token has the name, or it is the id of another worker or of a job."""


class WorkerOnline(Conflict):
    """A worker can't be forgotten while it is online."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker!r} is online; stop it first")
        self.worker = worker


class JobNotRunning(Conflict):
    """A signal needs a running job; ``state`` is the job's state."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} is not running: it is {state}")
        self.job_id = job_id
        self.state = state


class JobNotEnded(Conflict):
    """Only a job that has ended can be removed; ``state`` is the job's state."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} has not ended: it is {state}; stop it first")
        self.job_id = job_id
        self.state = state


class Unauthenticated(SchedulerError):
    """The caller did not prove who it is: it has no token, or one that is not valid."""


class Refused(SchedulerError):
    """The caller is not permitted to do this."""


class ScopeNeeded(Refused):
    """The caller's scope is too small; ``needed`` is the smallest scope that suffices."""

    def __init__(self, principal: str, needed: str) -> None:
        super().__init__(f"{principal} is not permitted to do this: it needs the scope {needed!r}")
        self.principal = principal
        self.needed = needed


class Unsupported(SchedulerError):
    """The worker lacks a capability."""

    def __init__(self, worker: str, capability: str) -> None:
        super().__init__(f"worker {worker!r} does not support {capability}")
        self.worker = worker
        self.capability = capability


class WorkerFault(SchedulerError):
    """The worker answered with an error."""

    def __init__(self, worker: str, detail: str) -> None:
        super().__init__(f"worker {worker!r} answered with a fault: {detail}")
        self.worker = worker
        self.detail = detail


class AnswerUnreadable(WorkerFault):
    """The answer is too large or garbled. The worker may have carried out the request."""


class KeyReused(SchedulerError):
    """An idempotency key was used again for another request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key!r} was used for another request")
        self.key = key


class JobRemoved(SchedulerError):
    """A client removed the job of this idempotency key."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the job of this Idempotency-Key, {job_id!r}, was removed")
        self.job_id = job_id


class OutputPruned(SchedulerError):
    """The worker no longer keeps the job's output."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the output of job {job_id!r} is no longer kept")
        self.job_id = job_id


class OutputGone(SchedulerError):
    """The output is gone for good: the job is lost with its output, or its worker was forgotten."""

    def __init__(self, job_id: str, reason: str) -> None:
        """``reason`` is a sentence about the job or its worker."""
        super().__init__(f"the output of job {job_id!r} is gone: {reason}")
        self.job_id = job_id
        self.reason = reason


class OutputCut(SchedulerError):
    """The job wrote more than was kept: the end of its output is missing."""

    def __init__(self, job_id: str, reason: str) -> None:
        """``reason`` is the job's ``output_error``."""
        super().__init__(f"the output of job {job_id!r} was cut: {reason}")
        self.job_id = job_id
        self.reason = reason


class LeftRunning(SchedulerError):
    """Some processes survived a stop; ``leftover`` are their ids, ``reason`` is a sentence."""

    def __init__(self, job_id: str, leftover: tuple[int, ...], reason: str) -> None:
        super().__init__(f"job {job_id!r} is not stopped: {reason}")
        self.job_id = job_id
        self.leftover = leftover
        self.reason = reason


class OffsetBeyondEnd(SchedulerError):
    """The offset is past the end: the stream has ``size`` bytes."""

    def __init__(self, offset: int, size: int) -> None:
        super().__init__(f"offset {offset} is past the end: the stream has {size} bytes")
        self.offset = offset
        self.size = size


class DeadlineExceeded(SchedulerError):
    """No answer came in time. The request may have taken effect. ``job_id`` is set if it was a start."""

    retryable = True

    def __init__(self, what: str, seconds: float, job_id: str | None = None) -> None:
        super().__init__(f"{what}: no answer within {seconds:g} s")
        self.what = what
        self.seconds = seconds
        self.job_id = job_id


class StartUnanswered(SchedulerError):
    """A start was sent, but its answer was lost or could not be saved. The job may or may not run."""

    def __init__(self, worker: str, job_id: str, why: str = "") -> None:
        """``why`` says what came in place of an answer, if anything."""
        what = f"the start of job {job_id!r} on worker {worker!r} failed ({why})"
        super().__init__(
            f"{what if why else f'worker {worker!r} did not answer the start of job {job_id!r}'}; "
            "the job's state is unknown until it reports"
        )
        self.worker = worker
        self.job_id = job_id


class Unavailable(SchedulerError):
    """The request can't be carried out now; ``retry_after`` is a hint in seconds."""

    retryable = True

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(Unavailable):
    """A worker, or the scheduler of a worker, can't be reached. ``sent``: the request may have arrived all the same."""

    def __init__(self, name: str, sent: bool = False, kind: str = "worker", reason: str = "") -> None:
        """``reason`` is a few words that end a sentence, like ``connection refused``; ``""``: unknown."""
        super().__init__(f"{kind} {name!r} can't be reached" + (reason and f": {reason}"))
        self.name = name
        self.sent = sent
        self.kind = kind
        self.reason = reason


#: The reason of ``Misdirected``.
ANOTHER_PROCESS = "another process answers at its address"


class Misdirected(Unreachable):
    """The call reached a process that it was not meant for, and had no effect."""

    def __init__(self, name: str) -> None:
        super().__init__(name, reason=ANOTHER_PROCESS)


class NotAWorker(Unreachable):
    """The program at a worker's address lacks ``method``, which every worker has. Nothing was started."""

    def __init__(self, name: str, method: str) -> None:
        super().__init__(name, reason=f"it answers {method} with UNIMPLEMENTED: it is no worker")
        self.method = method


class NoFreeSlot(Unavailable):
    """Workers match, but each has no free slot or can't be reached."""


class QueueFull(Unavailable):
    """The queue is full."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are queued, and no more may be", retry_after=10)
        self.limit = limit


class TooManyRequests(Unavailable):
    """An address or a principal has as much as one may have; others can go on."""


class KeyInUse(Unavailable):
    """The first request with this idempotency key is still in progress."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the first request with Idempotency-Key {key!r} is still under way", retry_after=1)
        self.key = key


class KeyUnsettled(Unavailable):
    """The database was set back, and the use of this idempotency key is not known yet."""

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
    """The store did not commit, so nothing was started or acknowledged. ``str()`` is the store's reason."""

    @staticmethod
    def sentence(why: str) -> str:
        """The message for users; ``why`` is the store's reason."""
        return f"database unavailable: {why}"


class ShuttingDown(Unavailable):
    """This process is stopping and accepts no new work."""

    def __init__(self) -> None:
        super().__init__("shutting down")
