"""The scheduler's URL, and the parts of a request that depend on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from attrs import field, frozen

from scheduler import __version__
from scheduler.client.exchange import Request

DEFAULT_URL = "http://127.0.0.1:3000"


@frozen
class Target:
    """A scheduler's base URL, and the token by which the scheduler knows this client."""

    scheme: str
    #: An IPv6 address includes its zone: ``fe80::1%eth0``.
    host: str
    port: int
    #: The prefix of every path: ``""``, or like ``/scheduler``.
    prefix: str
    token: str | None = field(repr=False)

    @property
    def base(self) -> str:
        """The URL up to the path: scheme, host and port."""
        return f"{self.scheme}://{self.host_in_url}:{self.port}"

    @property
    def host_in_url(self) -> str:
        """The host as in a URL: an IPv6 address in brackets, with its zone after ``%25``."""
        return "[{}]".format(self.host.replace("%", "%25")) if ":" in self.host else self.host

    def path(self, request: Request) -> str:
        query = f"?{urlencode(request.query, quote_via=quote)}" if request.query else ""
        return f"{self.prefix}{request.path}{query}"

    def headers(self, request: Request) -> Mapping[str, str]:
        headers = {"User-Agent": f"scheduler-client/{__version__}", "Accept": "application/json", **request.headers}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers


def body(request: Request) -> bytes | None:
    """The request's body in bytes. Half surrogate pairs, as in undecodable arguments, are escaped."""
    return None if request.body is None else json.dumps(request.body).encode("ascii")


def read_target(url: str, token: str | None) -> Target:
    """The target for a URL. Raises ``ValueError`` for an invalid URL, or parts beside scheme, host, port and path."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} must be like http://host:3000 or https://host:3000")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL must not have a user or password: use token")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} must not have a query or a fragment")
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ValueError("token must be printable ASCII without spaces")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname.replace("%25", "%")  # before the zone of an IPv6 address: RFC 6874
    return Target(parts.scheme, host, port, parts.path.rstrip("/"), token)
