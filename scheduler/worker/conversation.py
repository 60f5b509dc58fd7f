"""The calls of this worker to its scheduler, and what follows from their answers.

Theory of operation. The scheduler may forget this worker, by a restart or otherwise. It then answers NOT_FOUND to a
heartbeat, and the worker registers again with the id it holds, which is kept in a file for the next process. A
scheduler that speaks only the core protocol answers heartbeats with UNIMPLEMENTED. That still shows that it can be
reached: if it was away before, the worker registers again, as the scheduler may have been restarted.

A scheduler may ask for a registration, because what it derived from the last one may have changed. The worker stays
registered meanwhile. If the registration fails, the worker goes on as before, and tries again with a later beat.

A *beat* is a regular heartbeat, a third of the lease after the one before. It begins a *round*, in which each
unacknowledged end is told once. ``reports`` decides what heartbeats tell of jobs. ``link`` decides when a call is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    NotFound,
    Refused,
    SchedulerError,
    Unauthenticated,
    Unreachable,
    Unsupported,
)
from scheduler.messages import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.model import Disk
from scheduler.names import is_id
from scheduler.worker.reports import Reports
from scheduler.worker.troubles import RETRY_MAX_SECONDS, Troubles
from scheduler.worker_interfaces import ICommitCount, IHeldId, IJobs, IOwnIds, ISchedulerClient

#: Seconds from a registration, or the try of one, to the next that the scheduler asks for, at least.
_REGISTER_AGAIN_SECONDS = 5.0

#: Seconds to wait for the answer to the leaving heartbeat. It is a courtesy: without it the scheduler finds out when a
#: call fails or the lease ends.
LEAVE_DEADLINE_SECONDS = 2.0

#: Seconds: the bounds of a lease that is believed, and the lease that is assumed where none is told.
_LEASE_MIN_SECONDS = 1.0
_LEASE_MAX_SECONDS = 24 * 3600.0
_DEFAULT_LEASE_SECONDS = 30.0

#: Failures that the same request meets again until a configuration is changed.
_LASTING = (Invalid, Unauthenticated, Refused, Conflict)


@define(eq=False, slots=False)
class Conversation:
    """The conversation of one worker with its scheduler. Its user makes one call at a time."""

    _log = Logger()

    _clock: IReactorTime
    _client: ISchedulerClient
    _jobs: IJobs
    #: Makes a registration without ids, each time anew; the ids are in ``held_id`` and ``identity``.
    _facts: Callable[[], Registration]
    _held_id: IHeldId
    #: Keeps the highest count that was told.
    _commit_count: ICommitCount
    _identity: IOwnIds
    _random: Random
    #: Each heartbeat tells these two.
    _wall_time: Callable[[], float]
    _disk: Callable[[], Disk | None]

    def __attrs_post_init__(self) -> None:
        #: The highest that a scheduler has told; 0: none has.
        self._commits = 0
        self._boot_id = ""
        self._lease = _DEFAULT_LEASE_SECONDS
        self._registered = False
        #: The scheduler asks for a registration although the worker is registered.
        self._register_again = False
        #: When that may be done, and the refusal that was logged last.
        self._register_after = 0.0
        self._refusal = ""
        #: The scheduler has said that it does not know this worker, and not taken a heartbeat since.
        self._forgotten = False
        #: The scheduler has said that it knows no heartbeats.
        self._unheard = False
        self._reports = Reports(self._jobs)
        self.troubles = Troubles(self._random)
        #: When the next round begins.
        self.due = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is to be told, or was told in this round."""
        return self._reports.idle

    @property
    def takes_ends(self) -> bool:
        """Whether the end of a job is to be told at once."""
        return self._registered and not self.troubles.failures and not self._unheard

    def begin(self) -> None:
        """Read the id and the count that the previous process kept."""
        self._identity.worker_id = self._held_id.read()
        self._commits = self._commit_count.read()
        self._disk()  # so that the first heartbeat can tell

    def begin_round(self) -> None:
        """Begin a round: unacknowledged ends are told again. The next round is due a third of a lease later."""
        self._reports.begin_round()
        self.due = self._clock.seconds() + self._lease / 3 * self._random.uniform(0.9, 1)

    async def call(self) -> float:
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
            return self.troubles.add("the scheduler forgets this worker again and again")
        except _LASTING as error:
            self.troubles.add(f"the scheduler refuses this worker: {error}")
            return RETRY_MAX_SECONDS
        except (Unreachable, DeadlineExceeded) as error:
            return self.troubles.add("no contact with the scheduler", str(error))
        except SchedulerError as error:
            return self.troubles.add(f"the scheduler answers with a fault: {error}")
        if not self._registered or self._may_register_again or self._more_to_say:
            return 0
        return max(self.due - self._clock.seconds(), 0)

    async def leave(self) -> None:
        """Deregister; while jobs run, say that the worker leaves instead."""
        if not self._registered:
            return
        running, worker_id = self._jobs.running(), self._identity.worker_id
        if running or self._jobs.is_starting():
            self._log.info("worker {worker_id} leaves {count} jobs running", worker_id=worker_id, count=len(running))
            if not self._unheard:
                beat = Deferred.fromCoroutine(self._beat(leaving=True))
                with contextlib.suppress(SchedulerError, TimedOut):
                    await beat.addTimeout(LEAVE_DEADLINE_SECONDS, self._clock)
            return
        try:
            if self._more_to_say:
                await self._beat()
            await self._client.deregister(worker_id, self._identity.nonce)
        except SchedulerError as error:
            self._log.warn("worker {worker_id} could not deregister: {why}", worker_id=worker_id, why=str(error))
        else:
            self._log.info("worker {worker_id} deregistered", worker_id=worker_id)
        self._registered = False

    # registering

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
            # An id that a scheduler of the core protocol chose may be invalid for another scheduler.
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
        self.begin_round()
        if not self._forgotten:  # else a heartbeat has to prove first that the scheduler knows this worker now
            self.troubles.end()
        self._log.info(
            "registered as {worker_id}, to be called at {address}",
            worker_id=identity.worker_id,
            address=registration.address,
            name=registration.name,
            lease=self._lease,
        )

    # heartbeats

    async def _beat(self, leaving: bool = False) -> None:
        reports = () if self._unheard else await self._reports.describe()
        running = self._jobs.running()  # after the wait
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
        if self.troubles.end():
            self._log.info("in contact with the scheduler again", worker_id=self._identity.worker_id)

    def _count(self, commits: int) -> None:
        if commits > self._commits:
            self._commits = commits
            self._commit_count.write(commits)

    async def _not_heard(self) -> None:
        """Note that the scheduler is there and knows no heartbeats."""
        if not self._unheard:
            self._unheard = True
            self._jobs.expect_acknowledgements(False)
            self._log.info("the scheduler knows no heartbeats: it has to ask how jobs are")
        elif self.troubles.failures:
            # The scheduler was away. It may have forgotten this worker, and has no way to say so.
            with contextlib.suppress(SchedulerError):
                await self._client.deregister(self._identity.worker_id, self._identity.nonce)
            self._registered = False

    @property
    def _more_to_say(self) -> bool:
        return not self._unheard and self._reports.pending


def _believed(lease: float) -> float:
    """Bound a lease that the scheduler told; ``0`` means that it told none."""
    return min(max(lease, _LEASE_MIN_SECONDS), _LEASE_MAX_SECONDS) if lease > 0 else _DEFAULT_LEASE_SECONDS
