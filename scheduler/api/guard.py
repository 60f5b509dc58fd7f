"""The browser guard: a web page must not use this server through its visitor's browser.

Any page can make a browser send requests to 127.0.0.1, and by DNS rebinding even under the page's own name. So these
rules apply to every method of every path, before anything else is looked at:

- The request has exactly one ``Host``, and this host is allowed. Unless configured, a loopback name is allowed, and the
  IP address that the connection came in on, because DNS can't make an address lead elsewhere.
- An ``Origin``, if there is one, is the server's own.
- A ``Sec-Fetch-Site``, if there is one, says that no other site is behind the request.

A request whose end another program could read differently, by its ``Transfer-Encoding``, is refused here, too.

No answer has a CORS header. Programs send neither ``Origin`` nor ``Sec-Fetch-Site``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from twisted.web.http_headers import Headers

from scheduler.api.errors import Problem
from scheduler.net import same_ip

#: Hosts that are allowed unless configured, beside the address that a connection came in on.
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

# The zone of an IPv6 address is dropped: it has a meaning on the client's machine only (RFC 6874).
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)(?:%[A-Za-z0-9_.%-]+)?\]|(?P<name>[A-Za-z0-9_.-]+))(?::[0-9]{1,5})?")

_SAME_SITE = frozenset({"same-origin", "none"})


def refusal(
    headers: Headers, allowed_hosts: Collection[str] | None, came_in_on: str = "", over_tls: bool = False
) -> Problem | None:
    """The problem with which a request with these headers is refused; ``None`` if it may pass.

    ``allowed_hosts`` are names and addresses in lower case, without port or brackets; ``None``: the
    loopback names, and ``came_in_on``, the IP address at which the connection reached this server. ``over_tls``: the
    server speaks HTTPS. Without it, a proxy in front may.
    """
    if any(coding.lower() != "chunked" for coding in values_of(headers, "transfer-encoding")):
        # The parser skips "identity", which RFC 9112 has no more, and other programs may not.
        return Problem(400, "the only Transfer-Encoding is chunked", type="invalid-request")
    hosts = values_of(headers, "host")
    if len(hosts) != 1:
        return Problem(400, f"exactly one Host header is wanted, not {len(hosts)}", type="invalid-request")
    host = hosts[0].lower()
    match = _HOST.fullmatch(host)
    if match is None:
        return Problem(400, "the Host header is not a name or address", type="invalid-request")
    if not _allowed(match["v6"] or match["name"], allowed_hosts, came_in_on):
        return Problem(403, f"host not allowed: {host!r}; see allowed_hosts in [http_server]", type="host-not-allowed")
    own = (f"https://{host}",) if over_tls else (f"http://{host}", f"https://{host}")
    if any(origin.lower() not in own for origin in values_of(headers, "origin")):
        return Problem(403, "requests on behalf of other web pages are not answered (Origin)", type="cross-site")
    if any(site.lower() not in _SAME_SITE for site in values_of(headers, "sec-fetch-site")):
        return Problem(403, "requests on behalf of other sites are not answered (Sec-Fetch-Site)", type="cross-site")
    return None


def _allowed(host: str, allowed_hosts: Collection[str] | None, came_in_on: str) -> bool:
    if allowed_hosts is not None:
        return host in allowed_hosts
    return host in LOOPBACK_HOSTS or same_ip(host, came_in_on)


def values_of(headers: Headers, name: str) -> list[str]:
    """All values of a header, decoded as Latin-1, so each byte is a character."""
    return [value.decode("latin-1") for value in headers.getRawHeaders(name.encode("ascii"), [])]
