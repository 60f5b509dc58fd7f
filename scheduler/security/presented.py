"""The facts in a certificate that decide what its holder may do: its identity, its DNS names and its serial.

The common name is never read: an authority may put any text there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from attrs import frozen
from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    IPAddress,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)

from scheduler.errors import Invalid
from scheduler.security.identities import Identity, identity_in

#: The remaining validity below which a certificate is reported.
EXPIRES_SOON = timedelta(days=30)

_HEX = re.compile(r"[0-9a-fA-F]+")


@frozen
class Presented:
    """The facts in a certificate."""

    serial: int
    #: ``None``: the certificate states none, as it is of a foreign authority.
    identity: Identity | None
    #: In lower case.
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    begins: datetime
    ends: datetime


def presented(certificate: Certificate) -> Presented:
    """Read a certificate. Raises ``Invalid`` if it states a malformed identity, or two."""
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        names = SubjectAlternativeName([])
    except ValueError as error:
        raise Invalid("certificate", f"its extensions can't be read: {error}") from None
    dns_names = [name.lower().rstrip(".") for name in names.get_values_for_type(DNSName)]
    return Presented(
        certificate.serial_number,
        identity_in(names.get_values_for_type(UniformResourceIdentifier)),
        tuple(dns_names),
        tuple(map(str, names.get_values_for_type(IPAddress))),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def expires_soon(ends: datetime, now: datetime) -> bool:
    """Whether a certificate that is valid until ``ends`` has expired, or expires within ``EXPIRES_SOON``."""
    return ends - now < EXPIRES_SOON


def serial_text(serial: int) -> str:
    """The serial as a line of the file of revoked certificates has it: hexadecimal."""
    text = f"{serial:x}"
    return text if len(text) % 2 == 0 else f"0{text}"


def parse_serials(text: str) -> frozenset[int]:
    """The serials in a file of revoked certificates: one in each line; ``#`` begins a comment.

    Colons and case are ignored. Raises ``Invalid`` that names the first line which is no serial.
    """
    return frozenset(_serials(text.splitlines()))


def _serials(lines: Iterable[str]) -> Iterable[int]:
    for number, line in enumerate(lines, 1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        digits = written.replace(":", "")
        if not _HEX.fullmatch(digits):
            raise Invalid("revoked", f"line {number}, {written[:80]!r}, is no serial in hexadecimal digits")
        yield int(digits, 16)
