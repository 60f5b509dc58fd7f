"""A process by its pidfd: its end wakes the reactor, and a signal can reach no other process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class Pidfd:
    """Calls ``ended`` once, when the process has ended, unless closed before."""

    def __init__(self, reactor: IReactorFDSet, fd: int, ended: Callable[[], None]) -> None:
        """Takes over ``fd``, a pidfd."""
        self._reactor = reactor
        self._fd = fd
        self._ended = ended
        reactor.addReader(self)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        """Forget the process."""
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "Pidfd"

    def doRead(self) -> None:
        """Note the end of the process: from then on its pidfd is readable."""
        self.close()
        self._ended()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - the interface has it
        """Close, as the reactor drops its readers at shutdown."""
        self.close()
