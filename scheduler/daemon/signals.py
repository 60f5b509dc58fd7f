"""What signals do to a process of twistd: which ones stop it, and which have a daemon turn to its log file.

Twisted stops the reactor on SIGTERM and SIGINT, once it runs, and knows no SIGHUP, which
ends a process at once unless it is handled: a terminal that is closed sends it to all
that was started there. So in the foreground it is a SIGTERM, unless whoever started the
process had it ignored (``nohup``). A daemon has no terminal; there it means what it means
to any daemon, as does SIGUSR1 to twistd.
"""

from __future__ import annotations

import signal

from twisted.internet.base import ReactorBase
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from scheduler.daemon.logfile import LogFile

_log = Logger()


def stop_once(reactor: ReactorBase) -> None:
    """Have the reactor take a second ``stop`` for the first; Twisted would log that as an error, with a traceback."""
    stop = reactor.stop

    def stop_unless_stopping() -> None:
        try:
            stop()
        except ReactorNotRunning:
            _log.info("already stopping")

    reactor.stop = stop_unless_stopping  # type: ignore[method-assign]


def handle(reactor: ReactorBase, foreground: bool, log_file: LogFile | None) -> None:
    """Have this process act on signals from now on; one that comes before the reactor runs stops that when it does.

    ``log_file`` is ``None`` for a process that logs to stdout, or as twistd was told.
    """

    def stop(number: int) -> None:
        _log.info("stopping: {signal}", signal=signal.Signals(number).name)
        # SIGHUP is to act as SIGTERM, also to whoever looks at what the process ended by.
        reactor.sigTerm(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def stopping(number: int, _: object) -> None:
        reactor.callFromThread(stop, number)

    def handle_stops() -> None:
        signal.signal(signal.SIGTERM, stopping)
        # Not where it was ignored, as in the background job of a shell, and not under pdb.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, stopping)

    def reopen(*_: object) -> None:
        if log_file is not None:
            reactor.callFromThread(log_file.reopen)

    def rotate(*_: object) -> None:
        if log_file is not None:
            reactor.callFromThread(log_file.rotate)

    handle_stops()
    reactor.callWhenRunning(handle_stops)  # again, as the reactor has handlers of its own
    if foreground:
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, stopping)
    else:
        signal.signal(signal.SIGHUP, reopen)
    if log_file is not None and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, rotate)
