"""Keeps this worker registered, and reports its jobs and that it is alive, whatever happens to the scheduler.

Theory of operation. One call is in flight at a time, and its content is decided when it begins; so the ends of many
jobs go in one heartbeat. After a call, the next one is made at once if there is more to say, otherwise at the next beat
(a third of the lease). After a failed call it is made after a delay, which has jitter and grows with each failure.
During the delay no event causes a call, or the ends of jobs would hammer a scheduler that is down.

Two events bring the next heartbeat forward. A scheduler process that calls this worker for the first time has just
started, and may know only the worker's registration: the worker sends a heartbeat at once, even during a delay. A
connection that was cut may mean that the scheduler is being restarted: the next call comes after the first delay, and
then as after any failure. Repeated cuts lengthen the delay, so a connection that never lasts causes few calls.

The content of the calls is in ``conversation``.
"""

from __future__ import annotations

from random import Random

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.worker.conversation import Conversation
from scheduler.worker.troubles import RETRY_MAX_SECONDS, retry_delay
from scheduler.worker_interfaces import IJobs, IOwnIds, ISchedulerClient

#: Seconds after which a call under way was not made to a process of the scheduler that calls for the first time.
STALE_CALL_SECONDS = 1.0


@define(eq=False, slots=False)
class Link(Service):
    """A worker's side of the conversation with its scheduler. It begins at once, and does not wait for an answer."""

    _log = Logger()

    _clock: IReactorTime
    _client: ISchedulerClient
    _jobs: IJobs
    _identity: IOwnIds
    _conversation: Conversation
    _random: Random

    def __attrs_post_init__(self) -> None:
        self._troubles = self._conversation.troubles
        self._timer: IDelayedCall | None = None
        #: Fires when the call in flight is over and its answer was applied.
        self._call: Deferred[None] | None = None
        #: When it was made.
        self._began = 0.0
        #: A new scheduler has called meanwhile.
        self._called = False
        #: Cuts since the last call that was made at its regular time.
        self._cuts = 0
        self._jobs.on_end(self._job_ended)
        self._identity.on_new_scheduler(self._new_scheduler)
        self._client.on_cut(self._cut)

    @property
    def idle(self) -> bool:
        """Whether no call is in flight, and nothing is to be told or was told in this round."""
        return self._call is None and self._conversation.idle

    def startService(self) -> None:
        super().startService()
        self._conversation.begin()
        self._go()

    def stopService(self) -> Deferred[None]:
        """Leave. Fires once no call is in flight and the scheduler was told that the worker leaves.

        Never fails. The deadlines of the client limit how long it takes.
        """
        super().stopService()
        self._cancel_timer()
        return Deferred.fromCoroutine(self._leave()).addErrback(
            lambda reason: self._log.failure("leaving went wrong", reason)
        )

    async def _leave(self) -> None:
        if self._call is not None:
            await self._call
        await self._conversation.leave()

    # events that bring a call forward

    def _job_ended(self) -> None:
        if self._conversation.takes_ends:
            self._go()

    def _new_scheduler(self) -> None:
        # It is there. If it does not answer yet, it is tried again soon.
        self._troubles.failures = min(self._troubles.failures, 1)
        self._called = self._call is not None
        if self._called and self._clock.seconds() - self._began >= STALE_CALL_SECONDS:
            self._client.hang_up()  # it was made to the previous process, which can't answer any more
        self._go(new_round=True)

    def _cut(self) -> None:
        if self._call is not None or self._troubles.failures or not self.running:
            return  # a call that fails shows it, or has shown it
        self._cuts += 1
        delay = retry_delay(self._cuts, self._random)
        if self._timer is not None and self._timer.active() and self._timer.getTime() > self._clock.seconds() + delay:
            self._timer.cancel()
            self._timer = self._clock.callLater(delay, self._go, True)

    # one call after the other

    def _go(self, new_round: bool = False) -> None:
        """Make the next call now. If one is in flight, its end decides on the next."""
        if self._call is not None or not self.running:
            return
        self._cancel_timer()
        if new_round or self._clock.seconds() >= self._conversation.due:
            self._conversation.begin_round()
        self._began = self._clock.seconds()
        over = self._call = Deferred()
        Deferred.fromCoroutine(self._conversation.call()).addErrback(self._went_wrong).addCallback(self._ended, over)

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

    def _in_time(self) -> None:
        self._cuts = 0
        self._go(new_round=True)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _went_wrong(self, reason: Failure) -> float:
        self._log.failure("a call to the scheduler went wrong", reason)
        return RETRY_MAX_SECONDS
