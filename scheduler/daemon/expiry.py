"""Warns before the certificates of a process expire: in the log at its start and daily, and in notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler.daemon.certificates import read_pair
from scheduler.daemon.servers import TlsFiles
from scheduler.daemon.services import Periodic
from scheduler.errors import Invalid
from scheduler.security.presented import expires_soon

#: Seconds between two warnings in the log, and for which notes are not made again.
LOG_INTERVAL_SECONDS, NOTES_VALID_SECONDS = 24 * 3600.0, 60.0


class ExpiryWatch(Periodic):
    """A service that logs warnings about the certificates in ``files``; ``None`` for a server without TLS."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, wall_time: Callable[[], float], *files: TlsFiles | None) -> None:
        """``wall_time`` gives POSIX times."""
        super().__init__(clock, LOG_INTERVAL_SECONDS, self._warn, at_once=True)
        self._clock = clock
        self._wall_time = wall_time
        self._files = [each for each in files if each is not None]
        self._notes: tuple[str, ...] = ()
        self._made_at: float | None = None

    def notes(self) -> tuple[str, ...]:
        """A sentence for each certificate that expires soon, or has expired."""
        now = self._clock.seconds()
        if self._made_at is None or now - self._made_at >= NOTES_VALID_SECONDS:
            self._notes, self._made_at = self._found(), now
        return self._notes

    def _warn(self) -> None:
        for note in self._found():
            self._log.warn(
                "{note}; renew it (`schedctl ca issue --renew` for a certificate of that authority)", note=note
            )

    def _found(self) -> tuple[str, ...]:
        now = datetime.fromtimestamp(self._wall_time(), UTC)
        found = (note for files in self._files for note in _expiring(files, now))
        return tuple(dict.fromkeys(found))  # two servers may have the same certificate


def _expiring(files: TlsFiles, now: datetime) -> Iterator[str]:
    """A sentence for each of these certificates that expires soon, or has expired."""
    try:
        pair = read_pair(files)
    except Invalid:  # it was readable at the start; the use of the files reports it
        return
    for what, certificate in (
        (f"the certificate in {files.crt_file}", pair.chain[0]),
        *((f"the authority in {files.ca_file}", each) for each in pair.authorities),
    ):
        ends = certificate.not_valid_after_utc
        if expires_soon(ends, now):
            verb = "has expired" if ends <= now else "expires"
            yield f"{what} {verb} on {ends:%Y-%m-%d %H:%M} UTC"
