"""The tables ``[grpc_server]``, ``[http_server]`` and ``[limits]``: where a process listens, and what protects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import frozen

from scheduler.daemon.tomlfile import IPNetwork, Table, host, list_of, listening, network
from scheduler.daemon.users import User, read_scopes, read_users
from scheduler.limits import BODY_MAX_BYTES, ClientLimits
from scheduler.net import Address
from scheduler.reading import Unfit, flag, integer, size

#: Why a gRPC server may not listen beyond loopback.
UNPROTECTED = (
    "beyond loopback it needs use_tls = true with crt_file, key_file and ca_file, or allow_insecure = true "
    "where everyone who can reach it may run commands (all in [grpc_server])"
)


@frozen
class TlsFiles:
    """Certificates for serving and for dialling: absolute paths of readable files."""

    crt_file: Path
    key_file: Path
    #: The trusted certificate authority; if it is set, client certificates are required.
    ca_file: Path | None


@frozen
class GrpcServerSettings:
    """The table ``[grpc_server]``."""

    addr: Address
    #: ``None``: plain text, for serving and dialling.
    tls: TlsFiles | None
    #: With certificates of a foreign authority: DNS names of the processes that may call, in lower case. ``None``:
    #: everybody with a certificate of the authority may.
    peer_names: tuple[str, ...] | None
    #: The file with the serials of revoked certificates, which was readable.
    revoked: Path | None
    allow_insecure: bool
    #: Users of this machine who may call the server over loopback, beside root and the process's own user.
    local_users: tuple[User, ...]
    #: Names in ``local_users`` that this machine does not know.
    unknown_users: tuple[str, ...]

    @property
    def protected(self) -> bool:
        """Whether the server may listen beyond loopback."""
        return self.allow_insecure or self.knows_callers

    @property
    def knows_callers(self) -> bool:
        """Whether every caller shows a certificate."""
        return self.tls is not None and self.tls.ca_file is not None


@frozen
class HttpServerSettings:
    """The table ``[http_server]``."""

    addr: Address
    #: Hosts that a request may name in ``Host``: lower case, without port or brackets. ``None``: loopback names, and
    #: the IP address that the connection came in on.
    allowed_hosts: tuple[str, ...] | None
    allow_insecure: bool
    #: Users of this machine, each with ``"read"``, ``"run"`` or ``"admin"``.
    local_users: Mapping[User, str]
    #: The absolute path of a Unix socket to listen on, too.
    unix: Path | None
    #: ``None``: plain HTTP.
    tls: TlsFiles | None
    #: The proxies in front. They alone may state the address of a client.
    trusted_proxies: tuple[IPNetwork, ...]


def read_grpc_server(table: Table, default: str, users: Sequence[str]) -> GrpcServerSettings:
    """Read ``[grpc_server]``; ``default`` is the default of ``addr``, ``users`` that of ``local_users``.

    Raises ``ConfigError`` for a mistake.
    """
    addr = table.get("addr", listening, default)
    local_users, unknown_users = read_users(table, users)
    use_tls, allow_insecure = table.get("use_tls", flag, False), table.get("allow_insecure", flag, False)
    # before the default of one of these is found to be missing
    table.done("crt_file", "key_file", "ca_file", "peer_names", "revoked")
    pem_file = table.readable_file if use_tls else table.path  # without TLS the files need not exist
    crt_file = table.get("crt_file", pem_file, "server.pem")
    key_file = table.get("key_file", pem_file, "server.key")
    ca_file = table.find("ca_file", pem_file)
    peer_names, revoked = table.find("peer_names", _peer_names), table.find("revoked", table.readable_file)
    for key, value in (("peer_names", peer_names), ("revoked", revoked)):
        if value is not None and not (use_tls and ca_file):
            raise table.error(key, table.values[key], "needs use_tls = true and ca_file, by which callers are known")
    server = GrpcServerSettings(
        addr=addr,
        tls=TlsFiles(crt_file, key_file, ca_file) if use_tls else None,
        peer_names=peer_names,
        revoked=revoked,
        allow_insecure=allow_insecure,
        local_users=local_users,
        unknown_users=unknown_users,
    )
    if not addr.loopback and not server.protected:
        raise table.error("addr", str(addr), UNPROTECTED)
    return server


def _peer_names(value: Any) -> tuple[str, ...]:
    """Check the names of certificates."""
    names = tuple(name.rstrip(".") for name in list_of(host)(value))
    if not names:
        raise Unfit("must name at least one; without this key, every certificate of ca_file is accepted")
    return names


def read_http_server(table: Table) -> HttpServerSettings:
    """Read ``[http_server]``. Raises ``ConfigError`` for a mistake."""
    addr = table.get("addr", listening, "127.0.0.1:3000")
    use_tls, allow_insecure = table.get("use_tls", flag, False), table.get("allow_insecure", flag, False)
    allowed_hosts = table.find("allowed_hosts", list_of(host))
    trusted_proxies = table.get("trusted_proxies", list_of(network), [])
    local_users, unix = MappingProxyType(read_scopes(table)), table.find("unix", table.path)
    table.done("crt_file", "key_file")  # as in read_grpc_server
    pem_file = table.readable_file if use_tls else table.path
    crt_file = table.get("crt_file", pem_file, "server.pem")
    key_file = table.get("key_file", pem_file, "server.key")
    server = HttpServerSettings(
        addr=addr,
        allowed_hosts=allowed_hosts,
        allow_insecure=allow_insecure,
        local_users=local_users,
        unix=unix,
        tls=TlsFiles(crt_file, key_file, None) if use_tls else None,
        trusted_proxies=trusted_proxies,
    )
    if not addr.loopback and not use_tls and not allow_insecure:
        raise table.error(
            "addr",
            str(addr),
            "beyond loopback it needs use_tls = true with crt_file and key_file, or allow_insecure = true "
            "where everyone who can reach it may run commands (all in [http_server])",
        )
    return server


def read_limits(table: Table) -> ClientLimits:
    """Read ``[limits]``. Raises ``ConfigError`` for a mistake."""
    default = ClientLimits()
    many = integer(1, 1_000_000, "a whole number")
    limits = ClientLimits(
        body_bytes=table.get("body_bytes", _body_bytes, default.body_bytes),
        connections_per_address=table.get("connections_per_address", many, default.connections_per_address),
        followers_per_principal=table.get("followers_per_principal", many, default.followers_per_principal),
        failed_logins_per_minute=table.get("failed_logins_per_minute", many, default.failed_logins_per_minute),
    )
    table.done()
    return limits


def _body_bytes(value: Any) -> int:
    found = size(value)
    if found < BODY_MAX_BYTES:
        raise Unfit("must be at least 1MiB, the limit of one body")
    return found
