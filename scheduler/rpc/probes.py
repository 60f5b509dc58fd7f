"""Threads for probing workers, and for finding out which process answers at an address.

Theory of operation. A probe holds a thread until it is answered or times out. A worker that hangs, or whose packets are
dropped, makes every probe take its whole time. Many workers may do so at once, as behind a firewall, but there are few
threads. So the first attempt is short. If it is not answered, the probe continues on other threads, for as long as a
check may take. A worker that answers therefore only ever waits for short attempts. A worker that did not answer its
last probe is *silent*: it is probed on the other threads from then on, mostly for a short time. This is enough to
notice its return, because gRPC keeps trying to connect meanwhile. A new connection, as to a worker that registers from
elsewhere, starts over.

A registration waits while the scheduler finds out which process answers. These calls have threads of their own, so that
probes do not delay them.
"""

from __future__ import annotations

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from scheduler.errors import Misdirected, Unreachable
from scheduler.rpc.addressing import Addressee
from scheduler.rpc.worker_calls import ANSWERS_DEADLINE_SECONDS, CHECK_DEADLINE_SECONDS, Stubs, check_thd
from scheduler.threads import Pool

#: Seconds for a first attempt, and for a short probe of a worker that did not answer its last one.
SHORT_ATTEMPT_SECONDS = 0.5
#: Of so many probes of a silent worker, one may take as long as a check.
LONG_PROBE_EVERY = 8

#: Threads for first attempts, for silent workers, and for finding out which process answers.
MAX_FIRST_THREADS, MAX_SILENT_THREADS, MAX_ASKING_THREADS = 32, 16, 16


class Probes(MultiService):
    """Makes probes. Usable while it runs as a service."""

    def __init__(self, reactor: IReactorFromThreads, deadline: float) -> None:
        """``deadline``: the most seconds that a probe may take."""
        super().__init__()
        self._long = min(deadline, CHECK_DEADLINE_SECONDS)
        self._short = min(deadline, SHORT_ATTEMPT_SECONDS)
        self._first = Pool(reactor, "worker-probes", MAX_FIRST_THREADS)
        self._silent = Pool(reactor, "silent-workers", MAX_SILENT_THREADS)
        self._asking = Pool(reactor, "who-answers", MAX_ASKING_THREADS)
        for pool in (self._first, self._silent, self._asking):
            pool.setServiceParent(self)

    def probe(self, stubs: Stubs, to: Addressee) -> Deferred[None]:
        """Check that the worker answers. Fails like ``check_thd``."""
        if stubs.silent:
            stubs.probed_silent += 1
            seconds = self._short if stubs.probed_silent % LONG_PROBE_EVERY else self._long
            return self._silent.run(check_thd, stubs, to, seconds, self._long)

        def go_on(reason: Failure) -> Deferred[None]:
            return self._silent.run(check_thd, stubs, to, self._long) if stubs.silent else fail(reason)

        stubs.probed_silent = 0
        return self._first.run(check_thd, stubs, to, self._short, self._long).addErrback(go_on)

    def answers(self, stubs: Stubs, to: Addressee) -> Deferred[bool | None]:
        """Whether the addressee answers; ``None`` if no process does. Fails with ``Busy`` if it has no room."""

        def failed(reason: Failure) -> bool | None:
            reason.trap(Unreachable)
            return False if reason.check(Misdirected) else None

        asked = self._asking.run(check_thd, stubs, to, ANSWERS_DEADLINE_SECONDS)
        return asked.addCallbacks(lambda _: True, failed)
