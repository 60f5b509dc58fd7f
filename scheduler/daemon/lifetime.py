"""The first and the last lines of a process's log."""

from __future__ import annotations

import os
import platform

from twisted import __version__ as twisted_version
from twisted.logger import Logger

from scheduler import __version__
from scheduler.daemon.config import ProcessConfig
from scheduler.daemon.services import Step
from scheduler.security.identities import Identity

_log = Logger()


def lifetime(program: str, config: ProcessConfig, identity: Identity | None = None) -> Step:
    """The service that starts first and stops last, and logs the start and the end.

    ``identity`` is the one in the process's certificate. The log of the start warns if callers are not told apart.
    """
    server = config.grpc_server

    def starting() -> None:
        _log.info(
            "{program} {version} starts, with the configuration {file} and the state in {folder}",
            program=program,
            version=__version__,
            file=config.file,
            folder=str(config.state_dir),
            pid=os.getpid(),
            python=platform.python_version(),
            twisted=twisted_version,
        )
        for warning in config.warnings:
            _log.warn("{warning}", warning=warning)
        for name in server.unknown_users:
            _log.info("[grpc_server] local_users names {user!r}, whom this machine does not know", user=name)
        if server.tls is not None and identity is None and server.peer_names is None:
            _log.warn(
                "[grpc_server] crt_file states no identity, so every certificate of ca_file may call this {program} "
                "under any name: use certificates of `schedctl ca`, or set peer_names",
                program=program,
            )

    return Step(starting, lambda: _log.info("{program} has stopped", program=program))
