"""Checks certificates: a pair, its authority, its validity and its hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography.exceptions import InvalidSignature
from cryptography.x509 import Certificate, DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

from scheduler.cli.checks.findings import Finding, error, ok, warning
from scheduler.daemon.certificates import Pair
from scheduler.net import without_zone

#: The remaining validity below which a certificate is reported.
EXPIRES_SOON = timedelta(days=30)


def check_pair(subject: str, pair: Pair, hosts: Sequence[str], now: datetime) -> Iterator[Finding]:
    """Check a pair for the ``hosts`` that others dial; ``subject`` names it in findings, ``now`` has a time zone."""
    own = pair.chain[0]
    if not pair.fits:
        yield error(
            subject,
            "key_file is not the key of the certificate in crt_file",
            "Put the certificate and the key that were made together into crt_file and key_file",
        )
    if not pair.key_private:
        yield warning(
            subject,
            "Other users of this machine can read key_file",
            "Let only the owner read it: chmod 600, and for the group chmod 640",
        )
    yield from check_validity(subject, own, "The certificate", now)
    for authority in pair.authorities:
        yield from check_validity(subject, authority, "The authority in ca_file", now, quiet=True)
    if pair.authorities and not _is_signed(pair.chain, pair.authorities):
        yield error(
            subject,
            "No authority in ca_file has signed the certificate in crt_file",
            "Use a certificate of that authority, or add its authority (and those between) to ca_file or crt_file",
        )
    for host in hosts:
        if not covers(own, host):
            yield error(
                subject,
                f"The certificate is not valid for {host}, which others dial; it is for {_names(own)}",
                f"Make a certificate with {host} among its subject alternative names, or let others dial another name",
            )


def check_validity(
    subject: str, certificate: Certificate, what: str, now: datetime, quiet: bool = False
) -> Iterator[Finding]:
    """Check whether a certificate is valid now, and for how long. ``quiet``: report problems only."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    renew = "Replace it; scheduler and worker read the files anew by themselves"
    if now < begins:
        yield error(
            subject, f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC", "Check the clock of this machine"
        )
    elif now >= ends:
        yield error(subject, f"{what} has expired on {ends:%Y-%m-%d %H:%M} UTC", renew)
    elif ends - now < EXPIRES_SOON:
        yield warning(subject, f"{what} expires on {ends:%Y-%m-%d %H:%M} UTC, in {_days(ends - now)}", renew)
    elif not quiet:
        yield ok(subject, f"{what} is valid until {ends:%Y-%m-%d}, for {_days(ends - now)}")


def covers(certificate: Certificate, host: str) -> bool:
    """Whether a client that dials ``host`` accepts the certificate."""
    names = _alternative_names(certificate)
    if names is None:
        return False
    try:
        return ip_address(without_zone(host)) in names.get_values_for_type(IPAddress)
    except ValueError:
        wanted = host.lower().rstrip(".")
    known = {name.lower().rstrip(".") for name in names.get_values_for_type(DNSName)}
    return wanted in known or f"*.{wanted.partition('.')[2]}" in known


def _alternative_names(certificate: Certificate) -> SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (ExtensionNotFound, ValueError):
        return None


def _names(certificate: Certificate) -> str:
    names = _alternative_names(certificate)
    if names is None:
        return "no host"
    found = [*names.get_values_for_type(DNSName), *map(str, names.get_values_for_type(IPAddress))]
    return ", ".join(found) or "no host"


def _is_signed(chain: Sequence[Certificate], authorities: Sequence[Certificate]) -> bool:
    """Whether the chain leads from its first certificate to an authority among ``authorities``."""
    current, others = chain[0], list(chain[1:])
    while True:
        if any(current == authority or _signed_by(current, authority) for authority in authorities):
            return True
        above = next((other for other in others if _signed_by(current, other)), None)
        if above is None:
            return False
        others.remove(above)
        current = above


def _signed_by(certificate: Certificate, authority: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _days(span: timedelta) -> str:
    return "1 day" if span.days == 1 else f"{span.days} days"
