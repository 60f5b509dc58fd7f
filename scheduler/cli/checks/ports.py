"""Finds listening ports on this machine, and checks whether an address can be reached from here."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from attrs import frozen

from scheduler.cli.checks.findings import Finding, error, ok
from scheduler.daemon.servers import TlsFiles
from scheduler.net import Address, without_zone

#: Seconds that a connection attempt may take.
CONNECT_TIMEOUT_SECONDS = 3.0

# The first bytes that an HTTP/2 client sends: the preface, and empty settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

# The state of a listening socket in /proc/net/tcp.
_LISTEN = "0A"


@frozen
class Listener:
    """A listening TCP socket of this machine."""

    host: str
    port: int
    #: The program and its process, like ``nginx (pid 123)``; ``""`` if this user may not see them.
    process: str


def find_listeners(proc: Path = Path("/proc")) -> Sequence[Listener]:
    """All listening sockets of this network namespace, from ``/proc``."""
    rows = [row for name in ("tcp", "tcp6") for row in _rows(proc / "net" / name) if row[3] == _LISTEN]
    owners = _owners(proc, {row[9] for row in rows})
    found = []
    for row in rows:
        host, _, port = row[1].partition(":")
        found.append(Listener(_host(host), int(port, 16), owners.get(row[9], "")))
    return found


def _rows(file: Path) -> Iterator[list[str]]:
    try:
        lines = file.read_text().splitlines()[1:]
    except OSError:
        return
    yield from (line.split() for line in lines)


def _host(text: str) -> str:
    """An address in the form of /proc/net/tcp: 32-bit words in this machine's byte order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return str(IPv4Address(raw))
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def _owners(proc: Path, inodes: set[str]) -> dict[str, str]:
    """The processes of sockets, by the sockets' inodes, as far as this user may see them."""
    found: dict[str, str] = {}
    links = {f"socket:[{inode}]": inode for inode in inodes}
    for folder in proc.glob("[0-9]*"):
        for name in _open_files(folder) & links.keys():
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                program = (folder / "comm").read_text().strip()
                found.setdefault(links[name], f"{program} (pid {folder.name})")
    return found


def _open_files(folder: Path) -> set[str]:
    """The links to the open files of a process; empty if this user may not see them."""
    names = set()
    with contextlib.suppress(OSError):
        for descriptor in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                names.add(os.readlink(descriptor))
    return names


def listener_at(address: Address, listeners: Iterable[Listener]) -> Listener | None:
    """The socket that listens at that address, or prevents a server from listening there; ``None`` if there is none."""
    for listener in listeners:
        same = listener.host in (without_zone(address.host), "0.0.0.0", "::") or address.unspecified  # noqa: S104 - compared
        if listener.port == address.port and same:
            return listener
    return None


def connect(address: Address) -> str:
    """Why a connection to that address fails; ``""`` if it succeeds."""
    return _try(address, lambda _: "")


def dial(address: Address, tls: TlsFiles | None, dns_name: str = "") -> str:
    """Why scheduler and workers can't dial the gRPC server at that address; ``""`` if they can.

    With TLS its certificate must be for ``dns_name``, or, if that is ``""``, for the host.
    """

    def greet(connection: socket.socket) -> str:
        connection.sendall(_GREETING)
        answer = connection.recv(1)
        # The length of an HTTP/2 frame begins with this byte; a TLS alert begins with another.
        return "" if answer == b"\0" else "it does not speak gRPC without TLS; it has use_tls, most probably"

    def greet_secured(connection: socket.socket) -> str:
        assert tls is not None
        verified = dns_name or without_zone(_dialled(address))
        with _context(tls).wrap_socket(connection, server_hostname=verified) as secured:
            # A server that refuses this certificate says so only now, or hangs up without an alert, as gRPC does. A
            # server that accepts it sends its settings.
            return "" if secured.recv(1) else "TLS fails: it hangs up, and so does not accept this certificate"

    return _try(address, greet if tls is None else greet_secured)


def _try(address: Address, use: Callable[[socket.socket], str]) -> str:
    try:
        with socket.create_connection((_dialled(address), address.port), timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            return use(connection)
    except ssl.SSLCertVerificationError as problem:
        return f"its certificate is not accepted here: {problem.verify_message}"
    except ssl.SSLError as problem:
        return f"TLS fails: {problem.reason or problem}"
    except socket.gaierror as problem:
        return f"the name does not resolve: {problem.strerror}"
    except TimeoutError:
        return f"no answer within {CONNECT_TIMEOUT_SECONDS:g} s"
    except OSError as problem:
        return (problem.strerror or str(problem)).lower()


def _dialled(address: Address) -> str:
    """A host by which the server at that address can be dialled: loopback for an unspecified host."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared


def _context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    context.load_cert_chain(tls.crt_file, tls.key_file)
    context.set_alpn_protocols(["h2"])
    return context


def check_free(subject: str, table: str, address: Address, listeners: Iterable[Listener]) -> Iterator[Finding]:
    """Check whether a server that does not run could listen at ``address``."""
    taken = listener_at(address, listeners) if address.port else None
    if taken is not None:
        yield error(
            subject,
            f"[{table}] addr {address} is taken by {taken.process or 'a process that this user may not see'}",
            "Stop that process, or choose another port for addr; as root, doctor sees every process",
        )


def check_served(subject: str, table: str, address: Address, problem: str, listeners: Iterable[Listener]) -> Finding:
    """Check whether a running server listens at ``address``. ``problem`` is the result of ``connect``."""
    if problem:
        return error(
            subject,
            f"[{table}] does not listen at {address}: {problem}",
            "Its process was killed, or hangs: see its log, and start it again",
        )
    listener = listener_at(address, listeners)
    by = f": {listener.process}" if listener is not None and listener.process else ""
    return ok(subject, f"[{table}] listens at {address}{by}")
