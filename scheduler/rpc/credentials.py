"""Certificates for serving and for dialling.

Changed files are read again, so a rotation needs no restart: a server reads them at the next handshake, a client for
its next call, which gets a new channel. If a file can't be read, the files do not match, or the certificate states
another identity, the previous certificates stay in use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import grpc
from twisted.logger import Logger

from scheduler.daemon import certificates
from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Invalid

T = TypeVar("T")

_log = Logger()


#: Seconds after which unusable files that have not changed are read again.
READ_AGAIN_SECONDS = 10.0


class Current(Generic[T]):
    """An object made from the files, and made again after the files changed."""

    def __init__(
        self, files: TlsFiles, make: Callable[[TlsFiles], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises ``OSError`` or ``Invalid`` if the files can't be read."""
        self._files = files
        self._make = make
        self._clock = clock
        self._stamp = _stamp(files)
        self._made = make(files)
        self.identity = certificates.identity_of(files)
        #: The files that could not be used, and until when they are not read again.
        self._unfit = self._stamp
        self._unfit_until = -math.inf

    def get(self) -> T:
        """The object for the current files. The previous object is kept if they are unchanged or can't be used."""
        stamp = _stamp(self._files)
        if stamp == self._stamp or (stamp == self._unfit and self._clock() < self._unfit_until):
            return self._made
        try:
            self._check()
            made = self._make(self._files)
            if _stamp(self._files) == stamp:  # otherwise they changed meanwhile: the next call reads them
                self._made, self._stamp = made, stamp
                _log.info("certificates were read anew", file=str(self._files.crt_file))
        except (OSError, Invalid) as error:
            self._unfit, self._unfit_until = stamp, self._clock() + READ_AGAIN_SECONDS
            _log.warn("certificates stay as they were: {why}", why=str(error))
        return self._made

    def _check(self) -> None:
        identity = certificates.check(self._files)
        if identity != self.identity:
            now, before = identity or "no identity", self.identity or "no identity"
            raise Invalid("crt_file", f"{self._files.crt_file} states {now} in place of {before}; restart to use it")


def for_server(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials for serving. With a ``ca_file``, clients must present a certificate that this authority signed."""
    current = Current(files, _configuration)
    served = current.get()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Answer grpc, which calls this at each handshake. ``None`` keeps the present certificates."""
        nonlocal served
        before, served = served, current.get()
        return None if served is before else served

    return grpc.dynamic_ssl_server_credentials(
        served,
        fetch,  # type: ignore[arg-type]  # None is documented by grpc, not in its stubs
        require_client_authentication=files.ca_file is not None,
    )


def for_client(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials for dialling. Without a ``ca_file`` the system's authorities are trusted."""
    return grpc.ssl_channel_credentials(
        root_certificates=files.ca_file.read_bytes() if files.ca_file is not None else None,
        private_key=files.key_file.read_bytes(),
        certificate_chain=files.crt_file.read_bytes(),
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key_file.read_bytes(), files.crt_file.read_bytes())],
        root_certificates=files.ca_file.read_bytes() if files.ca_file is not None else None,
    )


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    """A value that changes with the files."""
    paths = [files.crt_file, files.key_file, *([files.ca_file] if files.ca_file is not None else [])]
    return tuple(map(_stamp_of, paths))


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
