"""Keeps this worker a member: registered, heard of, and with its jobs reported, whatever happens to the scheduler.

Theory of operation. One call is in flight at a time, and what shall be said is
decided when the next one may begin; so the ends of many jobs go in one
heartbeat. When a call has ended there are three ways on: another call at once
(there is more to say), one at the next beat (a third of the lease), or, after a
failure, one when a jittered and growing delay is over. Until it is over nothing
else makes a call, or the ends of jobs would hammer a scheduler that is down.

The scheduler may forget us, by a restart or otherwise: it then answers NOT_FOUND
to a heartbeat, and we register again with the id we hold, which is kept in a
file for the next process. One that speaks only the core protocol knows no
heartbeats. For it they are only a sign of whether it is there; when it was not
and is again we register anew, as it may have been restarted.

Two events bring the next heartbeat forward. A scheduler process that calls this
worker for the first time has just started, and may know no more than that there is
such a worker: it hears from us at once, even out of a delay after a failure. A
connection that was cut may mean that the scheduler is being restarted: we call after
the first delay, and then as after any failure. Cuts that follow each other have
growing delays, too, so a connection that never lasts makes no storm.

A scheduler may ask for a registration, as what it derived from the last one may have
changed. We stay registered meanwhile, and if that fails go on as before, and try again with a later beat.

What is told of jobs, and in how many heartbeats, is in ``reports``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    NotFound,
    Refused,
    SchedulerError,
    Unreachable,
    Unsupported,
)
from scheduler.messages import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.model import Disk, is_id
from scheduler.worker.reports import Reports
from scheduler.worker_interfaces import ICommitCount, IHeldId, IIdentity, IJobs, ISchedulerClient

#: Seconds: the first delay after a failure, doubled with each further one, and the longest.
RETRY_FIRST_SECONDS = 0.25
RETRY_MAX_SECONDS = 5.0

#: Seconds from a registration, or the try of one, to the next that the scheduler asks for, at least.
_REGISTER_AGAIN_SECONDS = 5.0

#: Seconds after which a call under way was not made to a process of the scheduler that calls for the first time.
STALE_CALL_SECONDS = 1.0

#: Seconds that the answer to the last heartbeat is waited for: it is sent as a favour.
LEAVE_DEADLINE_SECONDS = 2.0

#: Bounds of a lease that is believed, and the one that is assumed where none is told, in seconds.
_LEASE_MIN_SECONDS = 1.0
_LEASE_MAX_SECONDS = 24 * 3600.0
_DEFAULT_LEASE_SECONDS = 30.0

#: Lines of log about failures that follow each other: the text of an error may be another one each time.
_TROUBLES_LOGGED_MAX = 10

#: Failures that the same request meets again until somebody changes something.
_LASTING = (Invalid, Refused, Conflict)


class Link(Service):
    """A worker's side of the conversation with its scheduler. It begins at once, and does not wait for an answer."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        client: ISchedulerClient,
        jobs: IJobs,
        facts: Callable[[], Registration],
        held_id: IHeldId,
        commit_count: ICommitCount,
        identity: IIdentity,
        random: Random,
        wall_time: Callable[[], float],
        disk: Callable[[], Disk | None],
    ) -> None:
        """``facts`` says, each time, what to register as; who it is, is filled in from ``held_id`` and ``identity``.

        ``commit_count`` keeps the highest that was told.

        ``wall_time`` and ``disk`` are what each heartbeat tells of the machine.
        """
        self._clock = clock
        self._client = client
        self._jobs = jobs
        self._facts = facts
        self._held_id = held_id
        self._kept_count = commit_count
        #: The highest that a scheduler has told; 0: none has.
        self._commits = 0
        self._identity = identity
        self._random = random
        self._wall_time = wall_time
        self._disk = disk
        self._boot_id = ""
        self._lease = _DEFAULT_LEASE_SECONDS
        self._registered = False
        #: It asks for a registration all the same.
        self._register_again = False
        #: Before that it is not done, and what was logged of a refusal.
        self._register_after = 0.0
        self._refusal = ""
        #: The scheduler has said that it does not know us, and not taken a heartbeat since.
        self._forgotten = False
        #: The scheduler has said that it knows no heartbeats.
        self._unheard = False
        self._timer: IDelayedCall | None = None
        #: When the next round begins.
        self._due = 0.0
        #: Fires when the call in flight and what comes of it are over.
        self._call: Deferred[None] | None = None
        #: When it was made.
        self._began = 0.0
        #: A new scheduler has called meanwhile.
        self._called = False
        #: In a row; what was logged last about them, and how often something was.
        self._failures = 0
        self._trouble = ""
        self._troubles_logged = 0
        #: Since the last call that came in its time.
        self._cuts = 0
        self._reports = Reports(jobs)
        jobs.on_end(self._job_ended)
        identity.on_new_scheduler(self._new_scheduler)
        client.on_cut(self._cut)

    @property
    def idle(self) -> bool:
        """Whether no call is in flight, and nothing is to be told or was in this round."""
        return self._call is None and self._reports.idle

    def startService(self) -> None:
        super().startService()
        self._identity.worker_id = self._held_id.read()
        self._commits = self._kept_count.read()
        self._disk()  # so that the first heartbeat can tell
        self._go()

    def stopService(self) -> Deferred[None]:
        """Fires once nothing is in flight any more and the scheduler was told that we leave, and whether jobs run on.

        It never fails; the deadlines of the client bound how long it takes.
        """
        super().stopService()
        self._cancel_timer()
        return Deferred.fromCoroutine(self._leave()).addErrback(
            lambda reason: self._log.failure("leaving went wrong", reason)
        )

    async def _leave(self) -> None:
        if self._call is not None:
            await self._call
        if not self._registered:
            return
        running = self._jobs.running()
        if running or self._jobs.is_starting():
            self._log.info(
                "worker {worker_id} leaves {count} jobs running", worker_id=self._identity.worker_id, count=len(running)
            )
            await self._say_leaving()
            return
        try:
            if self._more_to_say():
                await self._beat()
            await self._client.deregister(self._identity.worker_id, self._identity.nonce)
        except SchedulerError as error:
            self._log.warn(
                "worker {worker_id} could not deregister: {why}", worker_id=self._identity.worker_id, why=str(error)
            )
        else:
            self._log.info("worker {worker_id} deregistered", worker_id=self._identity.worker_id)
        self._registered = False

    async def _say_leaving(self) -> None:
        """Who is not told finds out by a call that fails, or when the lease is over."""
        if self._unheard:
            return
        beat = Deferred.fromCoroutine(self._beat(leaving=True))
        with contextlib.suppress(SchedulerError, TimedOut):
            await beat.addTimeout(LEAVE_DEADLINE_SECONDS, self._clock)

    def _job_ended(self) -> None:
        if self._registered and not self._failures and not self._unheard:
            self._go()

    def _new_scheduler(self) -> None:
        self._failures = min(self._failures, 1)  # it is there: should it not answer yet, it is tried again soon
        self._called = self._call is not None
        if self._called and self._clock.seconds() - self._began >= STALE_CALL_SECONDS:
            self._client.hang_up()  # it was for the process before, which can't answer any more
        self._go(new_round=True)

    def _cut(self) -> None:
        if self._call is not None or self._failures or not self.running:
            return  # it shows, or has shown, by a call that fails
        self._cuts += 1
        delay = self._delay(self._cuts)
        if self._timer is not None and self._timer.active() and self._timer.getTime() > self._clock.seconds() + delay:
            self._timer.cancel()
            self._timer = self._clock.callLater(delay, self._go, True)

    def _in_time(self) -> None:
        self._cuts = 0
        self._go(new_round=True)

    def _go(self, new_round: bool = False) -> None:
        """Make the next call now, unless one is in flight: then its end decides."""
        if self._call is not None or not self.running:
            return
        self._cancel_timer()
        if new_round or self._clock.seconds() >= self._due:
            self._begin_round()
        self._began = self._clock.seconds()
        over = self._call = Deferred()
        Deferred.fromCoroutine(self._converse()).addErrback(self._went_wrong).addCallback(self._ended, over)

    def _ended(self, delay: float, over: Deferred[None]) -> None:
        self._call = None
        if self._called:
            self._called = False
            self._go(new_round=True)
        elif delay:
            self._timer = self._clock.callLater(delay, self._in_time) if self.running else None
        else:
            self._go()
        over.callback(None)

    def _begin_round(self) -> None:
        """What was told and is not acknowledged is to be told again, and the next beat is due a third of a lease on."""
        self._reports.begin_round()
        self._due = self._clock.seconds() + self._lease / 3 * self._random.uniform(0.9, 1)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    async def _converse(self) -> float:
        """Make one call; answers the seconds until the next."""
        try:
            if not self._registered:
                await self._register()
                return 0
            if self._may_register_again:
                await self._register_once_more()
                return 0
            await self._beat()
        except NotFound:
            self._registered = False
            if not self._forgotten:
                self._forgotten = True
                self._log.warn(
                    "the scheduler does not know worker {worker_id}: registering again",
                    worker_id=self._identity.worker_id,
                )
                return 0
            return self._after_failure("the scheduler forgets this worker again and again")
        except _LASTING as error:
            self._after_failure(f"the scheduler refuses this worker: {error}")
            return RETRY_MAX_SECONDS
        except (Unreachable, DeadlineExceeded) as error:
            return self._after_failure("no contact with the scheduler", str(error))
        except SchedulerError as error:
            return self._after_failure(f"the scheduler answers with a fault: {error}")
        if not self._registered or self._may_register_again or self._more_to_say():
            return 0
        return max(self._due - self._clock.seconds(), 0)

    def _after_failure(self, trouble: str, why: str = "") -> float:
        """Log it, if it is news, unless there is too much of that; answers the seconds until the next try."""
        self._failures += 1
        if trouble != self._trouble and self._troubles_logged < _TROUBLES_LOGGED_MAX:
            self._trouble = trouble
            self._troubles_logged += 1
            self._log.warn("{trouble}, trying again", trouble=trouble, **({"why": why} if why else {}))
        return self._delay(self._failures)

    def _delay(self, count: int) -> float:
        """Seconds until a call, after so many failures or cuts in a row."""
        delay = min(RETRY_MAX_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** min(count - 1, 16))
        return delay * self._random.uniform(0.5, 1)

    def _went_wrong(self, reason: Failure) -> float:
        self._log.failure("keeping up the membership went wrong", reason)
        return RETRY_MAX_SECONDS

    @property
    def _may_register_again(self) -> bool:
        return self._register_again and self._clock.seconds() >= self._register_after

    async def _register_once_more(self) -> None:
        self._register_after = self._clock.seconds() + _REGISTER_AGAIN_SECONDS
        try:
            await self._register()
        except _LASTING as error:  # what was registered before stands; this is tried again with a later beat
            refusal = str(error)
            if refusal != self._refusal:
                self._refusal = refusal
                self._log.warn("the scheduler refuses to register this worker again: {why}", why=refusal)

    async def _register(self) -> None:
        identity = self._identity
        registration = evolve(
            self._facts(),
            # One that a scheduler of the core protocol chose may be none for another: that has not given it.
            worker_id=identity.worker_id if is_id(identity.worker_id) else "",
            folder_id=identity.folder_id,
            nonce=identity.nonce,
            commit_count=self._commits,
        )
        registered: Registered = await self._client.register(registration)
        if registered.worker_id != identity.worker_id:
            identity.worker_id = registered.worker_id
            self._held_id.write(registered.worker_id)
        self._count(registered.commit_count)
        self._boot_id = registration.boot_id
        self._lease = _believed(registered.lease)
        self._registered = True
        self._register_again = False
        self._register_after = self._clock.seconds() + _REGISTER_AGAIN_SECONDS
        self._refusal = ""
        self._unheard = False
        self._begin_round()
        if not self._forgotten:  # else a heartbeat has to prove first that we are remembered now
            self._failures = self._troubles_logged = 0
            self._trouble = ""
        self._log.info(
            "registered as {worker_id}, to be called at {address}",
            worker_id=self._identity.worker_id,
            address=registration.address,
            name=registration.name,
            lease=self._lease,
        )

    async def _beat(self, leaving: bool = False) -> None:
        reports = () if self._unheard else await self._reports.describe()
        running = self._jobs.running()  # as it is when all is said
        heartbeat = Heartbeat(
            self._identity.worker_id,
            self._boot_id,
            running,
            leaving=leaving,
            refusing=self._jobs.refusing(),
            sent_at=self._wall_time(),
            disk=self._disk(),
            nonce=self._identity.nonce,
            commit_count=self._commits,
        )
        if not self._unheard:
            heartbeat = self._reports.fill(heartbeat, reports)
        try:
            answer: HeartbeatAnswer = await self._client.heartbeat(heartbeat)
        except Unsupported:
            await self._not_heard()
        else:
            self._lease = _believed(answer.lease)
            self._jobs.expect_acknowledgements(True)
            self._count(answer.commit_count)
            if answer.report_all:
                self._log.info("the scheduler asks for the ends of all jobs once more: its store was set back")
                self._jobs.report_again()
            self._jobs.acknowledge(answer.acknowledged)
            self._reports.want(answer.describe)
            self._register_again = self._register_again or answer.register_again
        self._forgotten = False
        self._failures = self._troubles_logged = 0
        if self._trouble:
            self._trouble = ""
            self._log.info("in contact with the scheduler again", worker_id=self._identity.worker_id)

    def _count(self, commits: int) -> None:
        if commits > self._commits:
            self._commits = commits
            self._kept_count.write(commits)

    async def _not_heard(self) -> None:
        """The scheduler is there and knows no heartbeats."""
        if not self._unheard:
            self._unheard = True
            self._jobs.expect_acknowledgements(False)
            self._log.info("the scheduler knows no heartbeats: it has to ask how jobs are")
        elif self._failures:
            # It was away, and may have forgotten us without a way to say so.
            with contextlib.suppress(SchedulerError):
                await self._client.deregister(self._identity.worker_id, self._identity.nonce)
            self._registered = False

    def _more_to_say(self) -> bool:
        return not self._unheard and self._reports.pending


def _believed(lease: float) -> float:
    """A lease as told, within reason; ``0`` is none."""
    return min(max(lease, _LEASE_MIN_SECONDS), _LEASE_MAX_SECONDS) if lease > 0 else _DEFAULT_LEASE_SECONDS
