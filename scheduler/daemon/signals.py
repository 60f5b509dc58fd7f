"""The effect of signals on a process of twistd: some stop it, others make a daemon reopen or rotate its log file.

Twisted stops the reactor on SIGTERM and SIGINT once it runs. It does not handle SIGHUP, which would end the process at
once. A terminal that is closed sends SIGHUP to all processes that were started in it. So in the foreground SIGHUP acts
like SIGTERM, unless it was ignored when the process started (``nohup``). A daemon has no terminal: there SIGHUP reopens
the log file, as usual for daemons, and SIGUSR1 rotates it, as in twistd.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from twisted.internet.base import ReactorBase
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from scheduler.daemon.logfile import LogFile

_log = Logger()


def stop_once(reactor: ReactorBase) -> None:
    """Make a second ``reactor.stop`` harmless. Twisted would log it as an error, with a traceback."""
    stop = reactor.stop

    def stop_unless_stopping() -> None:
        try:
            stop()
        except ReactorNotRunning:
            _log.info("already stopping")

    reactor.stop = stop_unless_stopping  # type: ignore[method-assign]


def handle(reactor: ReactorBase, foreground: bool, log_file: LogFile | None) -> None:
    """Make this process act on signals from now on. A stop before the reactor runs takes effect once it runs.

    ``log_file`` is ``None`` for a process that logs to stdout, or by twistd's own log.
    """

    def stop(number: int) -> None:
        _log.info("stopping: {signal}", signal=signal.Signals(number).name)
        # SIGHUP acts like SIGTERM, also in the exit status of the process.
        reactor.sigTerm(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def stopping(number: int, _: object) -> None:
        reactor.callFromThread(stop, number)

    def handle_stops() -> None:
        signal.signal(signal.SIGTERM, stopping)
        # SIGINT stays ignored if it was, as in a background job of a shell, and stays pdb's under pdb.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, stopping)

    def in_log_file(action: Callable[[LogFile], None]) -> Callable[..., None]:
        return lambda *_: None if log_file is None else reactor.callFromThread(action, log_file)

    handle_stops()
    reactor.callWhenRunning(handle_stops)  # again, because the reactor installs its own handlers
    if foreground:
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, stopping)
    else:
        signal.signal(signal.SIGHUP, in_log_file(LogFile.reopen))
    if log_file is not None and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, in_log_file(LogFile.rotate))
