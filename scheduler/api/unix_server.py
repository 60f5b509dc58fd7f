"""Listens for HTTP on a Unix socket, beside the TCP port. Every user may connect; each request is authenticated."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorUNIX
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.api.connection import ApiSite
from scheduler.daemon.unix_sockets import remove_left_behind

#: Connections that the kernel keeps until they are accepted.
_BACKLOG = 512

#: Everybody may connect, as to a port. The mode is no protection: requests are admitted by user or token.
_MODE = 0o666


class UnixServer(Service):
    """Listens at a path; ``bound`` is the path once it listens. The connections belong to the site."""

    _log = Logger()

    def __init__(self, reactor: IReactorUNIX, path: Path, site: ApiSite) -> None:
        self.bound: Path | None = None
        self._reactor = reactor
        self._path = path
        self._site = site
        self._port: _Port | None = None

    def startService(self) -> None:
        """Make the socket, as the user whom the process has from now on, who will have to remove it.

        Raises ``CannotListenError`` if that fails, ``OSError`` if the path can't be freed.
        """
        super().startService()
        remove_left_behind(self._path)
        port = _Port(os.fsencode(self._path), self._site, _BACKLOG, _MODE, self._reactor)
        port.startListening()
        self._port, self.bound = port, self._path
        self._log.info("HTTP on {path}", path=str(self._path))

    def stopService(self) -> Deferred[Any]:
        """Stop listening, and remove the socket. Fires when that is done; connections go on."""
        super().stopService()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening) if port is not None else maybeDeferred(lambda: None)


class _Port(unix.Port):
    """Removes its socket in the end, unless that is gone or another one."""

    _made: tuple[int, int]

    def startListening(self) -> None:
        super().startListening()
        self._made = _identity(self._bindPath)

    def connectionLost(self, reason: Failure) -> None:
        with suppress(OSError):  # twisted would not close the port
            if _identity(self._bindPath) == self._made:
                os.unlink(self._bindPath)
        tcp.Port.connectionLost(self, reason)


def _identity(path: bytes) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
