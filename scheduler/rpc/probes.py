"""The threads that probe workers, and those that ask who answers at an address.

Theory of operation. A probe holds a thread until it is answered or its time is over. A worker whose connections are
dropped, or whose process hangs, lets every probe take its whole time; there may be many of them, as behind a firewall,
and threads are few. So the first attempt is short, and what it does not settle goes on with the time of a check on
other threads: a worker that answers waits for no more than short attempts. A worker that gave no answer to the last
probe is probed on those other threads from then on, mostly for a short time: gRPC itself goes on to connect meanwhile,
so that is enough for one that is back. A new connection, as to a worker that registers from elsewhere, begins anew.

A registration waits for the question who answers. It has threads of its own, or those that are probed would delay it.
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

#: Seconds that the first attempt may take, and one to reach a worker that gave no answer to the last probe.
SHORT_ATTEMPT_SECONDS = 0.5
#: Of the probes of a worker that gives no answer, every so many-th may take as long as any check.
LONG_PROBE_EVERY = 8

#: Threads for first attempts, for workers that give no answer, and to ask who answers.
MAX_FIRST_THREADS, MAX_SILENT_THREADS, MAX_ASKING_THREADS = 32, 16, 16


class Probes(MultiService):
    """Usable while it runs as a service."""

    def __init__(self, reactor: IReactorFromThreads, deadline: float) -> None:
        """``deadline``: seconds that a probe may take at most."""
        super().__init__()
        self._long = min(deadline, CHECK_DEADLINE_SECONDS)
        self._short = min(deadline, SHORT_ATTEMPT_SECONDS)
        self._first = Pool(reactor, "worker-probes", MAX_FIRST_THREADS)
        self._silent = Pool(reactor, "silent-workers", MAX_SILENT_THREADS)
        self._asking = Pool(reactor, "who-answers", MAX_ASKING_THREADS)
        for pool in (self._first, self._silent, self._asking):
            pool.setServiceParent(self)

    def probe(self, stubs: Stubs, to: Addressee) -> Deferred[None]:
        """``Unreachable``, ``Misdirected``, ``Busy``."""
        if stubs.silent:
            stubs.probed_silent += 1
            seconds = self._short if stubs.probed_silent % LONG_PROBE_EVERY else self._long
            return self._silent.run(check_thd, stubs, to, seconds, self._long)

        def go_on(reason: Failure) -> Deferred[None]:
            return self._silent.run(check_thd, stubs, to, self._long) if stubs.silent else fail(reason)

        stubs.probed_silent = 0
        return self._first.run(check_thd, stubs, to, self._short, self._long).addErrback(go_on)

    def answers(self, stubs: Stubs, to: Addressee) -> Deferred[bool | None]:
        """Whether the process that is meant answers; ``None``: nobody does; ``Busy``."""

        def failed(reason: Failure) -> bool | None:
            reason.trap(Unreachable)
            return False if reason.check(Misdirected) else None

        asked = self._asking.run(check_thd, stubs, to, ANSWERS_DEADLINE_SECONDS)
        return asked.addCallbacks(lambda _: True, failed)
