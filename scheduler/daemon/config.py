"""The two configuration files as frozen values, with every key checked and every default filled in.

``load_scheduler`` and ``load_worker`` return the whole configuration, or raise a ``ConfigError`` that names file,
table, key, value and the allowed values. Nothing runs beyond loopback unprotected unless the file says so
(``scheduler.daemon.servers``).

This module and ``servers`` list all keys. A new key is a field there, and is read in the function for its table, with
a check of ``tomlfile``; ``tap`` hands its value on; the sample in ``etc/`` and ``docs/configuration.md`` describe it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import frozen

import scheduler
from scheduler.daemon.logs import LEVELS
from scheduler.daemon.servers import (
    UNPROTECTED,
    GrpcServerSettings,
    HttpServerSettings,
    read_grpc_server,
    read_http_server,
    read_limits,
)
from scheduler.daemon.tomlfile import (
    IPNetwork,
    Table,
    address,
    command,
    disk_share,
    duration,
    label,
    label_value,
    list_of,
    network,
    one_of,
    read,
    store_url,
    variable,
    variable_pattern,
    variable_value,
    worker_name,
)
from scheduler.limits import ClientLimits
from scheduler.names import LABELS_MAX, name_problem
from scheduler.net import Address
from scheduler.reading import flag, integer, size
from scheduler.units import Share


@frozen
class ClusterSettings:
    """The table ``[cluster]``."""

    #: Networks in which a worker's address may be, although it is not the caller's own.
    allowed_networks: tuple[IPNetwork, ...]
    #: Seconds for which a worker counts as reachable after a sign of life.
    lease: float
    #: The number of jobs that may be queued.
    queue_max: int
    #: Seconds for which a deregistered worker stays listed.
    forget_after: float


@frozen
class StoreSettings:
    """The table ``[store]``."""

    #: ``memory:``, ``sqlite:///`` and an absolute path, or ``postgresql+psycopg://...``, perhaps with a password.
    url: str
    #: Seconds for which a job is kept after its end.
    keep_jobs: float


@frozen
class ProcessConfig:
    """The part that both configuration files have."""

    #: The file's name, as given.
    file: str
    state_dir: Path
    #: ``"text"`` or ``"json"``.
    log_format: str
    #: A name in ``scheduler.daemon.logs.LEVELS``.
    log_level: str
    #: The longest time from SIGTERM to the end of the process, in seconds.
    shutdown_timeout: float
    grpc_server: GrpcServerSettings

    @property
    def warnings(self) -> list[str]:
        """Sentences about a lack of protection, for the log at each start."""
        grpc = self.grpc_server
        if not grpc.allow_insecure or grpc.knows_callers:
            return []
        return [f"[grpc_server] allow_insecure = true: everyone who can reach {grpc.addr} may call it"]


@frozen
class SchedulerConfig(ProcessConfig):
    """All of ``scheduler.toml``."""

    http_server: HttpServerSettings
    cluster: ClusterSettings
    store: StoreSettings
    limits: ClientLimits

    @property
    def warnings(self) -> list[str]:
        http, others = self.http_server, super().warnings
        if not http.allow_insecure:
            return others
        return [f"[http_server] allow_insecure = true: everyone who can reach {http.addr} is an administrator", *others]


@frozen
class WorkerSettings:
    """The table ``[worker]``."""

    name: str
    #: The labels in the file, and the label ``name``.
    labels: Mapping[str, str]
    slots: int
    scripts_dir: Path
    scripts_only: bool
    allowed_commands: tuple[str, ...]
    #: Variables that a job may set, by name or by first letters and ``*``; ``None``: all.
    allowed_env: tuple[str, ...] | None
    #: Environment variables that every job gets.
    env: Mapping[str, str]
    #: The address that the scheduler calls; ``None``: the address on which the gRPC server listens.
    advertise_addr: Address | None
    #: Seconds for which the spool of an ended job is kept.
    keep_spool: float
    #: The part of the disk that all spools may use, and the part that must be free for a start.
    spool_max: Share
    spool_min_free: Share
    #: Bytes of output of any job, at most; ``None``: only the job's own limit applies.
    output_limit: int | None


@frozen
class WorkerConfig(ProcessConfig):
    """All of ``worker.toml``."""

    #: The scheduler's gRPC server.
    scheduler: Address
    worker: WorkerSettings


def load_scheduler(path: str, environ: Mapping[str, str] = os.environ) -> SchedulerConfig:
    """Read and check ``scheduler.toml``. Raises ``ConfigError`` for a mistake."""
    root = read(path)
    common = _common(root, path, _default_state_dir("scheduler", environ), "127.0.0.1:50000", "scheduler-worker")
    config = SchedulerConfig(
        **common,
        http_server=read_http_server(root.table("http_server")),
        cluster=_cluster(root.table("cluster")),
        store=_store(root.table("store"), common["state_dir"]),
        limits=read_limits(root.table("limits")),
    )
    root.done()
    grpc, http = config.grpc_server.addr, config.http_server.addr
    if grpc.port == http.port != 0 and (grpc.host == http.host or grpc.unspecified or http.unspecified):
        raise root.table("http_server").error("addr", str(http), f"must not be that of [grpc_server], {grpc}")
    return config


def load_worker(path: str, environ: Mapping[str, str] = os.environ) -> WorkerConfig:
    """Read and check ``worker.toml``. Raises ``ConfigError`` for a mistake."""
    root = read(path)
    common = _common(root, path, _default_state_dir("scheduler-worker", environ), "127.0.0.1:30000", "scheduler")
    dialled = root.table("scheduler")
    scheduler = dialled.get("addr", address, "127.0.0.1:50000")
    dialled.done()
    config = WorkerConfig(**common, scheduler=scheduler, worker=_worker(root.table("worker")))
    root.done()
    _check_reachable(config, root)
    return config


def _common(root: Table, path: str, state_dir: str, grpc_addr: str, grpc_user: str) -> dict[str, Any]:
    """The fields of a ``ProcessConfig``. ``state_dir``, ``grpc_addr`` and ``grpc_user`` are defaults of its keys."""
    return {
        "file": path,
        "state_dir": root.get("state_dir", root.path, state_dir),
        "log_format": root.get("log_format", one_of("text", "json"), "text"),
        "log_level": root.get("log_level", one_of(*LEVELS), "info"),
        "shutdown_timeout": root.get("shutdown_timeout", duration("1s", "1h"), "20s"),
        "grpc_server": read_grpc_server(root.table("grpc_server"), grpc_addr, [grpc_user]),
    }


def _default_state_dir(folder: str, environ: Mapping[str, str]) -> str:
    """The folder that systemd names, else the usual place for a daemon or a user."""
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return f"/var/lib/{folder}"
    home = environ.get("XDG_STATE_HOME", "")
    return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.local/state"), folder)


def _cluster(table: Table) -> ClusterSettings:
    cluster = ClusterSettings(
        allowed_networks=table.get("allowed_networks", list_of(network), []),
        lease=table.get("lease", duration("1s", "1h"), "30s"),
        queue_max=table.get("queue_max", integer(0, 1_000_000, "a whole number"), 10_000),
        forget_after=table.get("forget_after", duration("0s", "3650d"), "7d"),
    )
    table.done()
    return cluster


def _store(table: Table, state_dir: Path) -> StoreSettings:
    store = StoreSettings(
        url=table.get("url", store_url(state_dir), "sqlite:///scheduler.db"),
        keep_jobs=table.get("keep_jobs", duration("1s", "3650d"), "30d"),
    )
    table.done()
    return store


def _worker(table: Table) -> WorkerSettings:
    name = _worker_name(table)
    env = table.table("env")
    settings = WorkerSettings(
        name=name,
        labels=_labels(table, name),
        slots=table.get("slots", integer(0, 100_000, "a whole number"), len(os.sched_getaffinity(0))),
        scripts_dir=table.get("scripts_dir", table.path, "scripts"),
        scripts_only=table.get("scripts_only", flag, False),
        allowed_commands=table.get("allowed_commands", list_of(command), ["*"]),
        allowed_env=table.find("allowed_env", list_of(variable_pattern)),
        env=MappingProxyType({key: env.get(variable(env, key), variable_value) for key in env}),
        advertise_addr=table.find("advertise_addr", address),
        keep_spool=table.get("keep_spool", duration("1s", "3650d"), "7d"),
        spool_max=table.get("spool_max", disk_share, "10%"),
        spool_min_free=table.get("spool_min_free", disk_share, "5%"),
        output_limit=table.find("output_limit", size),
    )
    table.done()
    return settings


def _worker_name(table: Table) -> str:
    """The name in the file, else the host name."""
    if (given := table.find("name", worker_name)) is not None:
        return given
    name = socket.gethostname()
    if problem := name_problem(name):
        why = f"is not set, and the host name of this machine, {name!r}, can't be it, as a name {problem}"
        raise table.error("name", None, f"{why}; set [worker] name")
    return name


def _labels(table: Table, name: str) -> Mapping[str, str]:
    given = table.table("labels")
    labels = {"name": name} | {key: given.get(label(given, key), label_value) for key in given}
    if len(labels) > LABELS_MAX:
        raise table.error("labels", None, f"are {len(labels)} with `name`; at most {LABELS_MAX} are allowed")
    return MappingProxyType(labels)


def _check_reachable(config: WorkerConfig, root: Table) -> None:
    """Raise ``ConfigError`` if a scheduler elsewhere could not call back, or would be called without protection."""
    if config.scheduler.loopback:
        return
    theirs = f"the scheduler at {config.scheduler} can't call a loopback address"
    told = config.worker.advertise_addr
    if told is not None and told.loopback:
        raise root.table("worker").error("advertise_addr", str(told), theirs)
    if told is None and config.grpc_server.addr.loopback:
        raise root.table("grpc_server").error(
            "addr",
            str(config.grpc_server.addr),
            f"{theirs}: listen where it can reach you (0.0.0.0 is every address), "
            "or name in [worker] advertise_addr what leads here",
        )
    if not config.grpc_server.protected:
        raise root.table("scheduler").error("addr", str(config.scheduler), UNPROTECTED)


def samples() -> Path:
    """The folder of the samples: ``scheduler/etc`` of an installed package, ``etc`` of a checkout."""
    package = Path(scheduler.__file__).parent
    installed = package / "etc"
    return installed if installed.is_dir() else package.parent / "etc"


def sample(program: str) -> Path:
    """The sample for ``scheduler`` or ``worker``. Every value in it is the default."""
    return samples() / f"{program}.toml"
