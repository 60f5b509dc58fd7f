"""Tells the world where a process listens: ``endpoints.json`` in its state folder, and systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from scheduler.daemon import systemd
from scheduler.daemon.state_dir import StateDir
from scheduler.net import Address

_log = Logger()

#: Seconds until ``endpoints.json`` is written again after a failure.
ANNOUNCE_AGAIN_SECONDS = 5.0


class Listening(Protocol):
    """A server. ``bound`` is its address, or the path of its Unix socket, while it listens."""

    @property
    def bound(self) -> Address | Path | None: ...


class Announcement(Service):
    """The service that starts last and stops first. It publishes the servers' addresses, and notifies systemd.

    If ``endpoints.json`` can't be written, as on a full disk, the process serves all the same and tries again later.
    """

    def __init__(self, clock: IReactorTime, state: StateDir, **servers: Listening) -> None:
        self._clock = clock
        self._state = state
        self._servers = servers
        self._again: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._write()
        systemd.notify(systemd.READY)

    def stopService(self) -> None:
        super().stopService()
        systemd.notify(systemd.STOPPING)
        if self._again is not None:
            self._again.cancel()
        self._state.remove_endpoints()

    def _write(self) -> None:
        self._again = None
        try:
            self._state.write_endpoints(**{name: str(server.bound) for name, server in self._servers.items()})
        except OSError as error:
            _log.error(
                "the addresses can't be written to endpoints.json in {folder}: {why}; the next attempt is in "
                "{seconds:g} s",
                folder=str(self._state.path),
                why=error.strerror or str(error),
                seconds=ANNOUNCE_AGAIN_SECONDS,
            )
            self._again = self._clock.callLater(ANNOUNCE_AGAIN_SECONDS, self._write)
