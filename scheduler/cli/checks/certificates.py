"""Checks certificates: a pair, its authority, its validity and its hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography.exceptions import InvalidSignature
from cryptography.x509 import Certificate, DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

from scheduler.cli.checks.findings import Finding, error, ok, warning
from scheduler.daemon.certificates import Pair, check_use, read_pair, read_revoked
from scheduler.daemon.servers import GrpcServerSettings
from scheduler.errors import Invalid
from scheduler.net import without_zone
from scheduler.security.identities import Role
from scheduler.security.presented import expires_soon


def check_identity(subject: str, server: GrpcServerSettings, role: Role, name: str) -> Iterator[Finding]:
    """Check who the certificate says its holder is, and who may call it. ``name`` is that of a worker, else ``""``."""
    try:
        identity = check_use(server, role)
        revoked = frozenset() if server.revoked is None else read_revoked(server.revoked)
    except Invalid as unfit:
        yield error(subject, f"[grpc_server] {unfit.field} {unfit.problem}", "Correct that key, or the file it names")
        return
    assert server.tls is not None
    if read_pair(server.tls).own.serial in revoked:
        yield error(
            subject, "The certificate in crt_file is in the list of revoked ones", "Use a new pair: schedctl ca issue"
        )
    if identity is not None and identity.name != name:
        yield error(
            subject,
            f"The certificate is that of worker {identity.name}, and [worker] name is {name}",
            "Set [worker] name to the name in the certificate, or issue a pair with this name",
        )
    elif identity is not None:
        yield ok(subject, f"The certificate says that this is {identity}")
    elif server.tls.ca_file is not None and server.peer_names is None:
        yield warning(
            subject,
            "Every certificate of ca_file may call it, under any name",
            "Use certificates of `schedctl ca`, or set [grpc_server] peer_names",
        )


def check_pair(subject: str, pair: Pair, hosts: Sequence[str], now: datetime) -> Iterator[Finding]:
    """Check a pair for the ``hosts`` that others dial; ``subject`` names it in findings, ``now`` has a time zone."""
    own = pair.chain[0]
    if not pair.fits:
        yield error(
            subject,
            "key_file is not the key of the certificate in crt_file",
            "Put the certificate and the key that were made together into crt_file and key_file",
        )
    yield from check_validity(subject, own, "The certificate", now)
    for authority in pair.authorities:
        yield from check_validity(subject, authority, "The authority in ca_file", now, quiet=True)
    if pair.authorities and not is_signed(pair.chain, pair.authorities):
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
    elif expires_soon(ends, now):
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


def is_signed(chain: Sequence[Certificate], authorities: Sequence[Certificate]) -> bool:
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
