"""The common part of ``twistd scheduler`` and ``twistd worker``: from the command line to a process that may start.

Theory of operation. twistd parses our options, makes the service, forks twice (without ``-n``), and starts the service.
A failure after the fork has no terminal to appear on. So everything that can be refused is refused in ``postOptions``:
a mistake in the configuration, a state folder in use, an unusable certificate, a port in use. A refusal is one line on
stderr and exit code 1.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.logger import Logger
from twisted.python import usage

from scheduler import __version__
from scheduler.daemon import certificates, descriptors, files, memory, pidfile, unix_sockets
from scheduler.daemon.announcement import Announcement, Listening
from scheduler.daemon.config import (
    SchedulerConfig,
    WorkerConfig,
    WorkerSettings,
    load_scheduler,
    load_worker,
    sample,
)
from scheduler.daemon.lifetime import lifetime
from scheduler.daemon.logs import LoggingService
from scheduler.daemon.ports import why_not_listen
from scheduler.daemon.servers import TlsFiles
from scheduler.daemon.services import Ordered, Step
from scheduler.daemon.state_dir import StateDir
from scheduler.daemon.tomlfile import ConfigError, without_password
from scheduler.errors import Invalid
from scheduler.net import Address
from scheduler.security.identities import Identity, Role

_log = Logger()


def make_process(reactor: Any, options: _Options, *parts: IService, **servers: Listening) -> IService:
    """Make the service of a whole process. The parts start in this order and stop in the reverse order."""
    config = options.config
    top = LoggingService(reactor, options.parent, config.log_format, config.log_level)
    ordered = Ordered(reactor, config.shutdown_timeout, end_after, end_with_failure)
    ordered.setServiceParent(top)
    first = lifetime(options.program, config, options.identity)
    announcement = Announcement(reactor, options.state, **servers)
    for part in (first, options.pidfile, *parts, announcement):
        part.setServiceParent(ordered)
    return top


def end_after(seconds: float) -> None:
    """Kill this process a second after ``seconds`` are over, from a thread, even if the reactor hangs.

    Returns at once. An orderly stop may use all of ``seconds``; the second more is for its last steps.
    """

    def end_thd() -> None:
        time.sleep(seconds + 1.0)
        os.write(2, b"shutdown_timeout is over: ending with what hangs\n")
        os._exit(1)

    threading.Thread(target=end_thd, name="last-resort", daemon=True).start()


def end_with_failure() -> None:
    """Make this process exit with 1 after an orderly end. twistd does so only if the start fails at once."""
    atexit.register(os._exit, 1)


def use_monotonic_time(reactor: ReactorBase) -> None:
    """Make timers independent of changes of the wall clock. Call it before the first timer is set."""
    reactor.seconds = time.monotonic


class _Options(usage.Options):
    """The options of both programs: configuration file, state folder, and defaults for twistd."""

    program: ClassVar[str]
    optParameters = [["config", "c", None, "The configuration file, TOML. Needed."]]  # noqa: N815 - twisted's name

    config: Any
    state: StateDir
    #: The role that the certificate must state, if it states one.
    role: ClassVar[Role]
    #: The identity that the certificate states; ``None``: it is of a foreign authority, or there is none.
    identity: Identity | None = None
    #: The umask with which twistd was started, or that its option names. This process itself has 0o077.
    umask: int
    #: The soft limit on descriptors with which twistd was started. This process itself has the hard limit.
    descriptors: int
    pidfile: Step = Step()

    def getSynopsis(self) -> str:
        """The usage text for ``--help``."""
        return (
            f"Usage: twistd [twistd options] {self.program} -c FILE\n"
            f"A sample of FILE, which explains every key: {sample(self.program)}"
        )

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"scheduler-gateway {__version__}")  # noqa: T201 - the requested output
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Refuse an unusable configuration, or take the state folder and set ``config``, ``state`` and ``umask``."""
        self.descriptors = descriptors.raise_limit()
        memory.keep_freed()
        started_with = os.umask(0o077)
        given = None if self.parent is None else self.parent.get("umask")
        self.umask = started_with if given is None else given
        if not self["config"]:
            raise SystemExit(f"twistd {self.program}: -c FILE is needed, the configuration; see {sample(self.program)}")
        try:
            self.config = self.load(self["config"])
            self._take_state_dir()
        except ConfigError as error:
            raise SystemExit(str(error)) from None
        try:
            with files.as_user(*self.user):
                self._check_tls()
                self._check_token()
            for table, address in self.servers():
                self._check_port(table, address)
            with files.as_user(*self.user):
                self.prepare()
        except ConfigError as error:
            self.state.release()
            raise SystemExit(str(error)) from None
        except KeyboardInterrupt:  # while it waits for a database or a port
            self.state.release()
            raise SystemExit(128 + signal.SIGINT) from None
        if self.parent is not None:
            self._set_defaults(self.parent)

    def load(self, file: str) -> Any:
        """Read the configuration. Raises ``ConfigError`` for a mistake in it."""
        raise NotImplementedError

    def servers(self) -> list[tuple[str, Address]]:
        """The addresses to listen on, by their tables in the configuration."""
        raise NotImplementedError

    def further_pairs(self) -> list[tuple[str, TlsFiles]]:
        """The certificates beside that of ``[grpc_server]``, by their tables in the configuration."""
        return []

    def prepare(self) -> None:
        """Prepare what else may be refused, such as a database. Raises ``ConfigError`` if it is unusable."""

    @property
    def user(self) -> tuple[int | None, int | None]:
        """The ids of the user and group that the process will switch to, ``None`` if it keeps its own."""
        twistd: Mapping[str, Any] = self.parent or {}
        return twistd.get("uid"), twistd.get("gid")

    def _take_state_dir(self) -> None:
        self.state = StateDir(self.config.state_dir)
        try:
            self.state.take(*self.user)
        except BlockingIOError:
            problem = f"is in use by a running process; each {self.program} needs a folder of its own"
        except OSError as error:
            problem = f"must be a folder this process can write, or can make: {error.strerror}"
        except Invalid as error:
            problem = error.problem
        else:
            return
        raise ConfigError(self.config.file, problem, "", "state_dir", str(self.config.state_dir))

    def _check_tls(self) -> None:
        server = self.config.grpc_server
        try:
            if server.revoked is not None:
                certificates.read_revoked(server.revoked)
            if server.tls is not None:
                self.identity = certificates.check_use(server, self.role)
                _check_key(server.tls)
        except Invalid as error:
            value = getattr(server if hasattr(server, error.field) else server.tls, error.field)
            raise self._unfit("grpc_server", error, value) from None
        for table, tls in self.further_pairs():
            try:
                certificates.check(tls)
                _check_key(tls)
            except Invalid as error:
                raise self._unfit(table, error, getattr(tls, error.field)) from None

    def _unfit(self, table: str, error: Invalid, value: Path | None) -> ConfigError:
        shown = None if value is None else str(value)
        return ConfigError(self.config.file, error.problem, table, error.field, shown)

    def _check_token(self) -> None:
        if problem := files.token_file_problem(self.state.path / files.ADMIN_TOKEN, os.geteuid()):
            raise ConfigError(self.config.file, f"the token file {problem}", "", "state_dir", str(self.state.path))

    def _check_port(self, table: str, address: Address) -> None:
        problem = why_not_listen(address, lambda text: sys.stderr.write(f"[{table}] addr = {address}: {text}\n"))
        if problem:
            raise ConfigError(self.config.file, problem, table, "addr", str(address))

    def _set_defaults(self, twistd: usage.Options) -> None:
        """Put pidfile and log into the state folder by default: two daemons of one folder must not share them."""
        daemon = not (twistd["nodaemon"] or twistd["debug"])
        is_default = twistd["pidfile"] == twistd.defaults["pidfile"]
        self.pidfile = pidfile.set_up(twistd, self.state.path / f"{self.program}.pid", daemon, is_default)
        if daemon and not twistd["logfile"]:
            twistd["logfile"] = str(self.state.path / f"{self.program}.log")


def _check_key(tls: TlsFiles) -> None:
    if problem := files.key_file_problem(tls.key_file, os.geteuid()):
        raise Invalid("key_file", problem)


class SchedulerOptions(_Options):
    """Options of ``twistd scheduler``."""

    program = "scheduler"
    role = Role.SCHEDULER
    config: SchedulerConfig

    database: Any
    longdesc = (
        "Puts one HTTP API in front of all your machines. Workers register here over gRPC ([grpc_server] addr); "
        "clients ask over HTTP ([http_server] addr) to start, stop, query or watch jobs on them: "
        "curl -s localhost:3000/v1/workers. "
        "With twistd's -n it stays in the foreground and logs to "
        "stdout; without, it is a daemon with scheduler.pid and scheduler.log in its state folder, stopped by SIGTERM."
    )

    @staticmethod
    def open_database(_url: str, /) -> Any:
        """Open the database; see ``scheduler.tap``. Raises ``Invalid`` of ``url`` if unfit."""

    def load(self, file: str) -> SchedulerConfig:
        return load_scheduler(file)

    def servers(self) -> list[tuple[str, Address]]:
        return [("http_server", self.config.http_server.addr), ("grpc_server", self.config.grpc_server.addr)]

    def further_pairs(self) -> list[tuple[str, TlsFiles]]:
        tls = self.config.http_server.tls
        return [] if tls is None else [("http_server", tls)]

    def prepare(self) -> None:
        path, url = self.config.http_server.unix, self.config.store.url
        if path is not None and (problem := unix_sockets.why_not_listen(path, self.user[0])):
            raise ConfigError(self.config.file, problem, "http_server", "unix", str(path))
        try:
            self.database = self.open_database(url)
        except Invalid as error:
            raise ConfigError(self.config.file, error.problem, "store", error.field, without_password(url)) from None


class WorkerOptions(_Options):
    """Options of ``twistd worker``."""

    program = "worker"
    role = Role.WORKER
    optFlags = [  # noqa: N815 - twisted's name
        [
            "new-id",
            None,
            "The state folder is a copy of another worker's: become a worker of its own. The copied jobs are set aside "
            "in the state folder, and are neither reported nor touched. Only for the first start from a copy.",
        ]
    ]
    config: WorkerConfig

    folder: Any
    longdesc = (
        "Runs jobs on this machine for a scheduler. It registers at [scheduler] addr, again and again until it can, "
        "and takes orders at its own [grpc_server] addr, so each side must be able to reach the other by TCP. "
        "The file decides what may run here: allowed_commands, scripts_dir, scripts_only. Jobs outlive the "
        "worker: stopped with SIGTERM it leaves them running, and takes them back when it starts again. "
        "With twistd's -n it stays in the foreground and logs to "
        "stdout; without, it is a daemon with worker.pid and worker.log in its state folder, stopped by SIGTERM."
    )

    @staticmethod
    def open_folder(_path: Path, _new_id: bool, /) -> Any:
        """Open the state folder, and return it as a ``StateFolder``; ``scheduler.worker.tap`` says how.

        If the folder has no id, one is made; with ``new-id``, a copied folder gets an id of its own. Raises
        ``Invalid`` if a file is faulty, with its path as the field.
        """

    @staticmethod
    def check_worker(_settings: WorkerSettings, /) -> None:
        """Raise ``Invalid`` for a worker that no scheduler would register; ``scheduler.worker.tap`` says how."""

    def load(self, file: str) -> WorkerConfig:
        return load_worker(file)

    def servers(self) -> list[tuple[str, Address]]:
        return [("grpc_server", self.config.grpc_server.addr)]

    def prepare(self) -> None:
        name = self.config.worker.name
        if self.identity is not None and self.identity.name != name:
            why = f"must be that in the certificate of [grpc_server] crt_file: {self.identity.name!r}"
            raise ConfigError(self.config.file, why, "worker", "name", name)
        try:
            self.check_worker(self.config.worker)
        except (Invalid, OSError) as error:
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise ConfigError(self.config.file, f"no scheduler would take this worker: {why}") from None
        try:
            self.folder = self.open_folder(self.state.path, bool(self["new-id"]))
        except Invalid as error:
            raise ConfigError(error.field, error.problem) from None
