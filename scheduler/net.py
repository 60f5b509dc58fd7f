"""Addresses: their syntax, and which of them the scheduler is willing to dial.

A worker's address is untrusted input. A worker that could name any address would make the scheduler connect to other
services inside its network. So an address is a plain ``host:port`` without gRPC's target schemes (``unix:``, ``dns:``,
lists). It must be the caller's own address, or loopback if the caller is on loopback too, or in a network that the
operator allowed.

A link-local IPv6 address has a zone (``fe80::1%eth0``): the interface by which it is reached. A zone is meaningful only
on the machine that uses the address. So if a caller gives such an address as its own, it gets the zone by which the
call came in.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import frozen
from twisted.internet.address import IPv4Address as IPv4Endpoint
from twisted.internet.address import IPv6Address as IPv6Endpoint
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from scheduler.errors import Invalid, Refused

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")

_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def split_address(text: str) -> tuple[str, int]:
    """The host, without brackets, and the port of ``host:port`` or ``[ipv6]:port``, with or without a zone.

    Raises ``Invalid`` for any other text.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= 65535:
        raise Invalid("address", f"{text!r} is not host:port with a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            address = IPv6Address(host[1:-1])
        except ValueError:
            raise Invalid("address", f"{text!r}: {host!r} is not an IPv6 address in brackets") from None
        if address.scope_id is not None and not _ZONE.fullmatch(address.scope_id):
            raise Invalid("address", f"{text!r}: {address.scope_id!r} is not the name of an interface")
        return str(address), int(port)
    try:
        return str(IPv4Address(host)), int(port)
    except ValueError:
        pass
    if len(host) > 253 or not _HOST_NAME.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
        raise Invalid("address", f"{text!r}: {host!r} is neither a host name nor an IP address (IPv6 in brackets)")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The address for ``split_address``: IPv6 hosts are put in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def without_zone(host: str) -> str:
    """The host without its zone, as certificates and the kernel's table of sockets show it."""
    return host.partition("%")[0]


def with_named_zone(host: str) -> str:
    """The host with its zone by name: ``fe80::1%eth0`` for ``fe80::1%2``. Interface numbers may change at a boot."""
    address, _, zone = host.partition("%")
    if not zone.isdecimal():
        return host
    try:
        name = socket.if_indextoname(int(zone))
    except (OSError, OverflowError):
        return host
    return f"{address}%{name}" if _ZONE.fullmatch(name) else host


@frozen
class Address:
    """An address on which a process listens, or which it dials."""

    host: str
    #: To listen on, 0 means any free port.
    port: int

    def __str__(self) -> str:
        return join_address(self.host, self.port)

    @property
    def loopback(self) -> bool:
        """Whether the host is certainly the machine on which the address is used."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def unspecified(self) -> bool:
        """Whether the address stands for all addresses of the machine."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def is_local(host: str) -> bool:
    """Whether this machine has the IP address ``host``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            ((*_, where),) = socket.getaddrinfo(host, 0, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
            probe.bind(where)  # ``where`` contains the zone
        except OSError:
            return False
        return True


def is_listener(address: str, bound: Address) -> bool:
    """Whether dialling ``host:port`` on this machine reaches the socket bound there; ``False`` for a host name."""
    host, port = split_address(address)
    try:
        dialled = ip_address(with_named_zone(host))
    except ValueError:
        return False
    if port != bound.port:
        return False
    if bound.unspecified:
        return is_local(host)
    try:
        return dialled == ip_address(with_named_zone(bound.host))
    except ValueError:  # bound to a host name
        return dialled.is_loopback and bound.loopback


def plain_ip(text: str) -> IPAddress | None:
    """The IP address in a text, an IPv4-mapped IPv6 address as IPv4; ``None`` if it is none."""
    try:
        return _plain(ip_address(text))
    except ValueError:
        return None


@lru_cache(1024)
def address_group(text: str) -> str:
    """The text by which an address is counted: IPv6 by its network of 64 bits, which one client may have for itself."""
    address = plain_ip(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return text if address is None else str(address)


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4-mapped IPv6 address as IPv4; any other unchanged."""
    return getattr(address, "ipv4_mapped", None) or address


def _same(address: IPAddress, other: IPAddress) -> bool:
    """Whether two addresses are equal, apart from their zones."""
    return address.version == other.version and int(address) == int(other)


def same_ip(one: str, other: str) -> bool:
    """Whether two texts are the same IP address, in any form and zone; ``False`` if either is no IP address."""
    try:
        return _same(_plain(ip_address(one)), _plain(ip_address(other)))
    except ValueError:
        return False


@frozen
class DialRule:
    """Decides which address to dial for the address that a worker gave."""

    #: Networks in which a worker may be, beside the caller's own address.
    allowed_networks: Sequence[IPNetwork]
    #: Resolves a name to IP addresses; an unknown name has none.
    resolve: Callable[[str], Deferred[Sequence[str]]]
    #: If certificates are checked against the name, the name is dialled. Without TLS, and with certificates that state
    #: identities, the resolved IP address is dialled, so that the name can't mean another machine later.
    keep_names: bool

    async def check(self, text: str, peer: str) -> str:
        """The address to dial for a worker that registers ``text`` (``host:port``) from the IP ``peer``.

        Raises ``Invalid`` if ``text`` is malformed or has no IP, ``Refused`` if it is neither the caller's nor allowed.
        """
        host, port = split_address(text)
        caller = _plain(ip_address(peer))
        try:
            addresses = [_plain(ip_address(host))]
        except ValueError:
            addresses = [_plain(ip_address(found)) for found in await self.resolve(host)]
            if not addresses:
                raise Invalid("address", f"{text!r}: the name {host!r} does not resolve") from None
        if addresses[0].is_unspecified:
            return join_address(str(caller), port)
        for address in addresses:
            if not self._allowed(address, caller):
                raise Refused(f"address {text!r} is not the caller's own ({peer}), nor in [cluster] allowed_networks")
        if "%" in peer and _same(addresses[0], caller) and (":" in host or not self.keep_names):
            return join_address(str(caller), port)
        return join_address(host if self.keep_names else str(addresses[0]), port)

    def _allowed(self, address: IPAddress, caller: IPAddress) -> bool:
        if _same(address, caller) or (address.is_loopback and caller.is_loopback):
            return True
        return any(address in network for network in self.allowed_networks)


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self) -> None:
        self.found: Deferred[Sequence[str]] = Deferred()
        self._hosts: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Endpoint | IPv6Endpoint):
            zone = getattr(address, "scopeID", 0)
            host = without_zone(address.host)
            self._hosts.append(with_named_zone(f"{host}%{zone}" if zone else host))

    def resolutionComplete(self) -> None:
        self.found.callback(self._hosts)


def resolving(resolver: IHostnameResolver) -> Callable[[str], Deferred[Sequence[str]]]:
    """Make the function for ``DialRule.resolve`` from the reactor's resolver."""

    def resolve(name: str) -> Deferred[Sequence[str]]:
        receiver = _Receiver()
        resolver.resolveHostName(receiver, name)
        return receiver.found

    return resolve
