"""Checks a scheduler or worker on this machine by its configuration file: ports, certificates, disk, connections."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve, frozen

from scheduler.cli.checks.certificates import check_identity, check_pair, covers, is_signed
from scheduler.cli.checks.files import check_files
from scheduler.cli.checks.findings import Finding, error, note, ok, warning
from scheduler.cli.checks.machines import check_disk
from scheduler.cli.checks.ports import Listener, check_free, check_served, connect, dial, find_listeners
from scheduler.cli.wording import Object
from scheduler.client import Disk
from scheduler.daemon.certificates import identity_of, read_pair
from scheduler.daemon.config import (
    ProcessConfig,
    SchedulerConfig,
    WorkerConfig,
    load_scheduler,
    load_worker,
    samples,
)
from scheduler.daemon.servers import TlsFiles
from scheduler.daemon.tomlfile import ConfigError, read
from scheduler.errors import Invalid, SchedulerError
from scheduler.net import Address, split_address
from scheduler.security.identities import Role, scheduler_dns_name

#: Tables that only one of the two configuration files has.
_SCHEDULER_TABLES, _WORKER_TABLES = ("http_server", "limits", "cluster", "store"), ("scheduler", "worker")

#: State folders of system services whose configuration file does not name a folder.
SYSTEM_STATE = {"scheduler": Path("/var/lib/scheduler"), "worker": Path("/var/lib/scheduler-worker")}


@frozen
class Installation:
    """A configuration file, and the state of the program that it configures."""

    config: ProcessConfig
    #: The addresses of its servers, by table, as published by the running process; ``None``: no process runs.
    endpoints: Mapping[str, Address] | None
    #: Whether this user may not read the state folder, so it is not known whether a process runs.
    hidden: bool = False

    @property
    def program(self) -> str:
        return "scheduler" if isinstance(self.config, SchedulerConfig) else "worker"

    @property
    def configured(self) -> Mapping[str, Address]:
        """The configured addresses of the program's servers, by table."""
        servers = {"grpc_server": self.config.grpc_server.addr}
        if isinstance(self.config, SchedulerConfig):
            servers["http_server"] = self.config.http_server.addr
        return servers


def load(file: str) -> ProcessConfig:
    """Read the file as its program does, ``scheduler`` or ``worker``. Raises ``ConfigError`` for a mistake."""
    keys = set(read(file))
    is_worker = keys & set(_WORKER_TABLES) or (not keys & set(_SCHEDULER_TABLES) and "worker" in os.path.basename(file))
    config = load_worker(file) if is_worker else load_scheduler(file)
    system = SYSTEM_STATE["worker" if is_worker else "scheduler"]
    # The default depends on the user. The daemon is most probably a system service, not a process of this user.
    return evolve(config, state_dir=system) if "state_dir" not in keys and system.is_dir() else config


def inspect(file: str, listed: Sequence[Sequence[Object]] = ()) -> Iterator[Finding]:
    """Run all checks of the program with this file. ``listed``: the scheduler's list of workers, if it gave one."""
    try:
        config = load(file)
    except ConfigError as problem:
        sentence = str(problem).removeprefix(f"{problem.file}: ")
        if " = " not in sentence.partition(":")[0]:  # the sentence begins with a word, not with a key
            sentence = f"{sentence[:1].upper()}{sentence[1:]}"
        yield error(file, sentence, f"Correct the file; the samples in {samples()} explain every key")
        return
    installation = look_at(config)
    yield ok(file, f"It is a valid configuration of a {installation.program}")
    yield from check_protection(file, config)
    listeners = find_listeners()
    yield from check_servers(installation, listeners)
    if config.grpc_server.tls is not None:
        yield from check_certificates(file, config)
    if isinstance(config, SchedulerConfig) and config.http_server.tls is not None:
        yield from check_http_certificates(file, config, config.http_server.tls)
    yield from check_files(file, config)
    yield from check_state_disk(file, config)
    if isinstance(config, WorkerConfig):
        yield from check_dialling(file, config)
        if listed and installation.endpoints is not None:
            address = config.worker.advertise_addr or installation.endpoints.get("grpc_server")
            yield check_registration(file, config, str(address), listed[0])
        yield from check_scripts(file, config)


def check_protection(file: str, config: ProcessConfig) -> Iterator[Finding]:
    """Check for settings that let everybody in, and for users of gRPC whom this machine does not know."""
    for sentence in config.warnings:
        yield warning(file, sentence, "Use certificates and tokens in its place: docs/operations.md, Three machines")
    for name in config.grpc_server.unknown_users:
        yield warning(
            file,
            f"[grpc_server] local_users names {name}, and this machine has no such user",
            "Correct the name; or make the user, and restart this program",
        )


def look_at(config: ProcessConfig) -> Installation:
    """Find out whether the program runs, and where it listens."""
    tables = {"grpc": "grpc_server", "http": "http_server"}
    try:
        told = json.loads((config.state_dir / "endpoints.json").read_text(encoding="utf-8"))
        endpoints = {tables[name]: Address(*split_address(where)) for name, where in told.items() if name in tables}
    except (FileNotFoundError, NotADirectoryError):
        return Installation(config, None)
    except (OSError, ValueError, AttributeError, SchedulerError):
        return Installation(config, None, hidden=True)
    return Installation(config, endpoints)


def check_servers(installation: Installation, listeners: Sequence[Listener]) -> Iterator[Finding]:
    """Check whether the program runs and its ports answer. If it does not run: whether its ports are free."""
    file, program = installation.config.file, installation.program
    if installation.hidden:
        yield note(
            file,
            f"Whether this {program} runs is not known: {installation.config.state_dir} can't be read",
            "Run doctor as the user of the daemon, or as root",
        )
        return
    if installation.endpoints is None:
        yield warning(
            file,
            f"This {program} does not run (there is no endpoints.json in {installation.config.state_dir})",
            f"Start it: `twistd {program} -c {file}`, or its systemd unit",
        )
        for table, address in installation.configured.items():
            yield from check_free(file, table, address, listeners)
        return
    for table, address in installation.endpoints.items():
        yield check_served(file, table, address, connect(address), listeners)


def dialled_hosts(config: ProcessConfig) -> Sequence[str]:
    """The hosts by which others dial the program's gRPC server, as far as the file shows."""
    told = config.worker.advertise_addr if isinstance(config, WorkerConfig) else None
    address = told or config.grpc_server.addr
    return [] if address.unspecified else [address.host]


def http_hosts(config: SchedulerConfig) -> Sequence[str]:
    """The hosts that clients put into their URLs, as far as the file shows."""
    address, listed = config.http_server.addr, config.http_server.allowed_hosts
    hosts = [address.host] if listed is None and not address.unspecified else listed or []
    return [host for host in hosts if not Address(host, 0).loopback]


def https_access(config: SchedulerConfig, host: str) -> tuple[str, str | None]:
    """A name by which the HTTPS server accepts requests and which its certificate is for, ``host`` if there is none.

    And its authority: ``ca_file`` of ``[grpc_server]``, or ``None`` if that has not signed the pair.
    """
    http, grpc = config.http_server.tls, config.grpc_server.tls
    try:
        chain = () if http is None else read_pair(http).chain
        authorities = () if grpc is None else read_pair(grpc).authorities
    except Invalid:
        return host, None  # its own check reports it
    names = [*(config.http_server.allowed_hosts or ()), host]
    name = next((name for name in names if chain and covers(chain[0], name)), host)
    trusted = chain and authorities and is_signed(chain, authorities)
    return name, str(grpc.ca_file) if grpc is not None and trusted else None


def check_http_certificates(file: str, config: SchedulerConfig, tls: TlsFiles) -> Iterator[Finding]:
    """Check the pair of ``[http_server]``."""
    try:
        pair = read_pair(tls)
    except Invalid as unfit:
        yield error(file, f"[http_server] {unfit.field} {unfit.problem}", "Put a PEM file there that holds it")
        return
    yield from check_pair(f"{file}, [http_server]", pair, http_hosts(config), datetime.now(UTC))


def check_certificates(file: str, config: ProcessConfig) -> Iterator[Finding]:
    """Check the files of ``[grpc_server]``, which must use TLS."""
    tls = config.grpc_server.tls
    assert tls is not None
    try:
        pair = read_pair(tls)
        identity = pair.own.identity
    except Invalid as unfit:
        yield error(file, f"[grpc_server] {unfit.field} {unfit.problem}", "Put a PEM file there that holds it")
        return
    # With an identity, others verify its name in place of the host that they dial.
    hosts = dialled_hosts(config) if identity is None else ()
    yield from check_pair(f"{file}, [grpc_server]", pair, hosts, datetime.now(UTC))
    if pair.fits:
        role, name = (Role.WORKER, config.worker.name) if isinstance(config, WorkerConfig) else (Role.SCHEDULER, "")
        yield from check_identity(file, config.grpc_server, role, name)


def check_state_disk(file: str, config: ProcessConfig) -> Iterator[Finding]:
    """Check the disk of the program's state folder, which may not exist yet."""
    folder: Path = config.state_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        found = os.statvfs(folder)
    except OSError as problem:
        yield error(
            file, f"state_dir {config.state_dir} can't be looked at: {problem.strerror}", "Choose another folder"
        )
        return
    disk = Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, found.f_files, found.f_favail)
    least = config.worker.spool_min_free.of(disk.size) if isinstance(config, WorkerConfig) else 0
    yield from check_disk(f"{file}, state_dir", disk, least)


def check_dialling(file: str, config: WorkerConfig) -> Iterator[Finding]:
    """Check whether the addresses that the worker and its scheduler dial can be reached from this machine."""
    tls = config.grpc_server.tls
    try:
        identity = identity_of(tls)
    except Invalid:
        identity = None  # its own check reports it
    problem = dial(config.scheduler, tls, "" if identity is None else scheduler_dns_name(identity.cluster))
    if problem:
        yield error(
            file,
            f"The scheduler can't be reached from here at [scheduler] addr {config.scheduler}: {problem}",
            "Start the scheduler, open its port in the firewall, or correct addr; both sides need the same "
            "use_tls, and certificates that their ca_file trusts",
        )
    else:
        yield ok(file, f"The scheduler can be reached from here at {config.scheduler}")
    told = config.worker.advertise_addr
    if told is not None and (problem := dial(told, tls, "" if identity is None else identity.dns_name)):
        yield warning(
            file,
            f"[worker] advertise_addr {told}, which the scheduler dials, can't be reached from here: {problem}",
            "Unless only the scheduler can reach it: correct it, or what forwards that port to this worker",
        )


def check_registration(file: str, config: WorkerConfig, address: str, workers: Sequence[Object]) -> Finding:
    """Check whether the scheduler knows this running worker, under this address."""
    name = config.worker.name
    known = next((worker for worker in workers if worker["name"] == name), None)
    if known is None:
        return error(
            file,
            f"This worker runs, and the scheduler knows no worker {name}",
            "See its log for why it is not registered; and whether the scheduler that it calls, at "
            f"{config.scheduler}, is the one that schedctl asked",
        )
    if known["address"] != address:
        return error(
            file,
            f"This worker is to be called at {address}, and the scheduler knows {name} at {known['address']}: "
            "another worker may have that name",
            "Give one of the two another [worker] name, and see its log",
        )
    return ok(file, f"The scheduler knows it as {name}")


def check_scripts(file: str, config: WorkerConfig) -> Iterator[Finding]:
    """Check the folder of scripts, if jobs may run nothing else."""
    folder = config.worker.scripts_dir
    if config.worker.scripts_only and not folder.is_dir():
        yield error(
            file,
            f"[worker] scripts_only is set, and scripts_dir {folder} is no folder: every job is refused",
            "Make that folder with the scripts, or correct scripts_dir",
        )
