"""The certificate authority of a cluster: a folder with ``ca.pem`` and ``ca.key``, and the pairs that it issues.

A key is written before its certificate, and a renewed pair replaces the old one file by file, each by a rename. A
process that reads the pair between the two renames sees files that do not fit, and keeps the pair that it has.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scheduler.errors import Conflict, Invalid
from scheduler.security.identities import Identity, check_label, is_identity_name

#: How long the certificate of an authority is valid, and one that it issues.
AUTHORITY_VALID, ISSUED_VALID = timedelta(days=3652), timedelta(days=365)
#: Certificates are valid from so long before they are made, as the clocks of other machines may be behind.
VALID_BEFORE = timedelta(hours=1)

_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMBERS = re.compile(r"[0-9.]+")
_HOST_MAX_CHARACTERS = 253

_CERTIFICATE, _KEY = "ca.pem", "ca.key"


@frozen
class Authority:
    """An authority: its certificate, its key, and the cluster that it is for."""

    cluster: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(folder: Path, cluster: str, now: datetime) -> Path:
    """Make an authority in the folder, which is made if it does not exist; the path of its certificate.

    Raises ``Invalid`` if the cluster's name is no DNS label, ``Conflict`` if the folder has an authority, ``OSError``
    if it can't be written. ``now`` has a time zone.
    """
    check_label("cluster", cluster)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (_KEY, _CERTIFICATE):
        if os.path.lexists(folder / name):
            raise Conflict(f"{folder / name} exists: an authority is not replaced, as its pairs would be useless")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "scheduler authority"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _begun(subject, subject, key.public_key(), now, AUTHORITY_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_new(folder / _KEY, _key_pem(key), 0o600)
    _write_new(folder / _CERTIFICATE, certificate.public_bytes(Encoding.PEM), 0o644)
    return folder / _CERTIFICATE


def open_authority(folder: Path) -> Authority:
    """Read the authority in the folder. Raises ``Invalid`` if there is none, or a file of it is unusable."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE).read_bytes())
        key = load_pem_private_key((folder / _KEY).read_bytes(), password=None)
    except OSError as error:
        raise Invalid("dir", f"{error.filename} can't be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid("dir", f"{folder} must hold an authority: {_CERTIFICATE} and {_KEY}, in PEM form") from None
    clusters = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise Invalid("dir", f"{folder / _KEY} is not the key of {folder / _CERTIFICATE}")
    if len(clusters) != 1:
        raise Invalid("dir", f"{folder / _CERTIFICATE} is not an authority of `schedctl ca init`: it names no cluster")
    cluster = str(clusters[0].value)
    check_label("cluster", cluster)
    return Authority(cluster, certificate, key)


def issue(authority: Authority, identity: Identity, hosts: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """Make a pair for a party of the cluster: its certificate and its key, both PEM.

    ``hosts`` are names and IP addresses by which others dial it. Raises ``Invalid`` for a text that is neither, and for
    a name in the domain that states identities.
    """
    alternatives: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity.uri),
        x509.DNSName(identity.dns_name),
        *(_host(authority.cluster, host) for host in dict.fromkeys(hosts)),
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name or identity.role.value)])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _begun(subject, authority.certificate.subject, key.public_key(), now, ISSUED_VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), _key_pem(key)


def write_pair(folder: Path, name: str, certificate: bytes, key: bytes, renew: bool = False) -> tuple[Path, Path]:
    """Write ``NAME.pem`` and ``NAME.key``, and return their paths.

    Raises ``Conflict`` if a file exists, unless ``renew``: then both are replaced. ``OSError`` if they can't be
    written. The key is readable to its owner alone, as is the key that it replaces.
    """
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    if not renew:
        for path in paths:
            if os.path.lexists(path):
                raise Conflict(f"{path} exists, and is not overwritten")
    for path, content, mode in ((paths[1], key, 0o600), (paths[0], certificate, 0o644)):
        if renew:
            _replace(path, content, mode)
        else:
            _write_new(path, content, mode)
    return paths


def _host(cluster: str, host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        name = host.lower().removesuffix(".")
    if len(name) > _HOST_MAX_CHARACTERS or not _HOST_NAME.fullmatch(name) or _NUMBERS.fullmatch(name):
        raise Invalid("host", f"{host!r} is neither a host name nor an IP address")
    if is_identity_name(cluster, name):
        raise Invalid("host", f"{host!r} would state an identity: names below {cluster}.internal are for identities")
    return x509.DNSName(name)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    """A certificate with these names and dates, without extensions."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID_BEFORE)
        .not_valid_after(now + valid)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that does not exist yet. Raises ``Conflict`` if it does, also as a link."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise Conflict(f"{path} exists, and is not overwritten") from None
    with os.fdopen(opened, "wb") as file:
        os.fchmod(opened, mode)  # whatever the umask
        file.write(content)
        file.flush()
        os.fsync(opened)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Replace a file by a rename, so that a reader sees the old content or the new one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write_new(draft, content, mode)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise
