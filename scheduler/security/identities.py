"""Identities: the role and name that a certificate carries, and the names in certificates that state them.

A certificate of ``schedctl ca`` states its identity twice among its subject alternative names. The URI is for servers,
which check the role of a caller. The DNS name is for clients, which verify the name of the server that they dial:

| role | URI | DNS name |
| --- | --- | --- |
| the scheduler | ``scheduler://CLUSTER/scheduler`` | ``scheduler.CLUSTER.internal`` |
| a worker | ``scheduler://CLUSTER/worker/NAME`` | ``NAME.worker.CLUSTER.internal`` |

DNS ignores case, so a name in another case would be the same server under another URI. Therefore names are lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from attrs import frozen

from scheduler.errors import Invalid

_SCHEME = "scheduler://"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = "internal"


class Role(Enum):
    """The two parties of a cluster."""

    SCHEDULER = "scheduler"
    WORKER = "worker"


def check_label(field_name: str, text: str) -> None:
    """Raise ``Invalid`` of that field, with the text, unless the text is a lower-case DNS label."""
    if not _LABEL.fullmatch(text):
        raise Invalid(
            field_name,
            f"{text!r} is no DNS label: 1 to 63 lower-case letters, digits and '-', "
            "that neither begins nor ends with '-'",
        )


@frozen
class Identity:
    """A role in a cluster, and the worker's name, which is ``""`` for the scheduler.

    Raises ``Invalid`` with ``cluster`` or ``name`` for a text that is no lower-case DNS label.
    """

    cluster: str
    role: Role
    name: str = ""

    def __attrs_post_init__(self) -> None:
        check_label("cluster", self.cluster)
        if self.role is Role.WORKER:
            check_label("name", self.name)
        elif self.name:
            raise Invalid("name", f"{self.name!r} is given; the scheduler of a cluster has no name of its own")

    @property
    def uri(self) -> str:
        """The URI among the subject alternative names."""
        path = self.role.value if self.role is Role.SCHEDULER else f"{self.role.value}/{self.name}"
        return f"{_SCHEME}{self.cluster}/{path}"

    @property
    def dns_name(self) -> str:
        """The DNS name among the subject alternative names, which clients verify."""
        return scheduler_dns_name(self.cluster) if self.role is Role.SCHEDULER else self.worker_dns_name(self.name)

    @property
    def principal(self) -> str:
        """The principal of calls with this identity: ``worker:NAME``, or ``scheduler``."""
        return f"{self.role.value}:{self.name}" if self.name else self.role.value

    def worker_dns_name(self, name: str) -> str:
        """The DNS name that a worker of this cluster has in its certificate. ``name`` need not be valid."""
        return f"{name}.{Role.WORKER.value}.{self.cluster}.{_DOMAIN}"

    def __str__(self) -> str:
        return self.uri


def scheduler_dns_name(cluster: str) -> str:
    """The DNS name that the scheduler of a cluster has in its certificate."""
    return f"{Role.SCHEDULER.value}.{cluster}.{_DOMAIN}"


def is_identity_name(cluster: str, dns_name: str) -> bool:
    """Whether a DNS name is in the domain that states identities of the cluster, so it can't be that of a host."""
    name = dns_name.lower().rstrip(".")
    return name == f"{cluster}.{_DOMAIN}" or name.endswith(f".{cluster}.{_DOMAIN}")


def identity_in(uris: Iterable[str]) -> Identity | None:
    """The identity that the URIs of a certificate state; ``None`` if they state none.

    Raises ``Invalid`` if a URI of ours is malformed, or if there are two.
    """
    ours = [uri for uri in uris if uri.lower().startswith(_SCHEME)]
    if not ours:
        return None
    if len(ours) > 1:
        raise Invalid("identity", f"the certificate states {len(ours)} identities: {', '.join(ours)}")
    return parse(ours[0])


def parse(uri: str) -> Identity:
    """The identity that a URI states. Raises ``Invalid`` for any other text."""
    cluster, *path = uri.removeprefix(_SCHEME).split("/")
    try:
        match path:
            case [Role.SCHEDULER.value]:
                return Identity(cluster, Role.SCHEDULER)
            case [Role.WORKER.value, name]:
                return Identity(cluster, Role.WORKER, name)
    except Invalid as error:
        raise Invalid("identity", f"{uri!r}: {error}") from None
    raise Invalid("identity", f"{uri!r} is neither {_SCHEME}CLUSTER/scheduler nor {_SCHEME}CLUSTER/worker/NAME")
