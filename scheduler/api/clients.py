"""The address of a client: that of its connection, or the one that a trusted proxy in front states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from twisted.web.http_headers import Headers

from scheduler.api.guard import values_of
from scheduler.net import IPAddress, IPNetwork, plain_ip

#: A hop in a header: an address, perhaps with a port. IPv6 with a port is in brackets.
_HOP = re.compile(
    r"\[(?P<v6>[0-9a-fA-F:.]+)\](?::[0-9]{1,5})?|(?P<v4>[0-9.]+)(?::[0-9]{1,5})?|(?P<bare>[0-9a-fA-F:.]+)"
)

#: The parameter ``for`` of an element of ``Forwarded`` (RFC 7239), with or without quotes.
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"(?P<quoted>[^"\\]*)"|(?P<token>[^";,\s]+))\s*(?=;|$)', re.IGNORECASE)


def is_trusted(address: str, proxies: Sequence[IPNetwork]) -> bool:
    """Whether the address is that of a proxy which may state the address of a client."""
    if not proxies:
        return False
    found = plain_ip(address)
    return found is not None and any(found in network for network in proxies)


def client_address(peer: str, headers: Headers, proxies: Sequence[IPNetwork]) -> str:
    """The address of the client that made a request; ``peer`` is the address at the other end of its connection.

    If ``peer`` is a trusted proxy, it is the rightmost address that the headers name and that is none itself. The
    addresses to the left of that one, and all that cannot be read, may be invented by the client.
    """
    if not is_trusted(peer, proxies):
        return peer
    for hop in reversed(list(_hops(headers))):
        address = _address(hop)
        if address is None:
            break
        peer = str(address)
        if not is_trusted(peer, proxies):
            break
    return peer


def _hops(headers: Headers) -> Iterator[str]:
    """The hops that the proxies on the way named, from the client on."""
    stated = values_of(headers, "x-forwarded-for")
    if stated:
        yield from (hop.strip() for hop in ",".join(stated).split(","))
        return
    for element in ",".join(values_of(headers, "forwarded")).split(","):
        found = _FOR.search(element.strip())
        yield "" if found is None else found["quoted"] if found["token"] is None else found["token"]


def _address(hop: str) -> IPAddress | None:
    found = _HOP.fullmatch(hop)
    try:
        return None if found is None else plain_ip(str(ip_address(found["v6"] or found["v4"] or found["bare"])))
    except ValueError:
        return None
