"""Reads the certificates that ``[grpc_server]`` names, and its list of revoked ones, and checks them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates

from scheduler.daemon.servers import GrpcServerSettings, TlsFiles
from scheduler.errors import Invalid
from scheduler.security.identities import Identity, Role
from scheduler.security.presented import Presented, parse_serials, presented

#: Bytes of the file of revoked certificates, for a hundred thousand serials.
REVOKED_MAX_BYTES = 4 * 1024 * 1024

_PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@frozen
class Pair:
    """A certificate and its key, and the trusted authorities."""

    #: The certificate, followed by those between it and its authority.
    chain: Sequence[Certificate]
    #: The public half of the private key, DER.
    key: bytes
    authorities: Sequence[Certificate] = ()

    @property
    def fits(self) -> bool:
        """Whether the key is that of the certificate."""
        return self.key == public_key(self.chain[0])

    @property
    def own(self) -> Presented:
        """The facts in the certificate. Raises ``Invalid`` of ``crt_file`` if it states a malformed identity."""
        return _own(self.chain[0])


def public_key(certificate: Certificate) -> bytes:
    """The public key in a certificate, as DER."""
    return certificate.public_key().public_bytes(*_PUBLIC)


def read_pair(files: TlsFiles) -> Pair:
    """Read the files. Raises ``Invalid`` with ``crt_file``, ``key_file`` or ``ca_file`` and the fault of that file."""
    chain = _certificates("crt_file", files.crt_file)
    authorities = () if files.ca_file is None else _certificates("ca_file", files.ca_file)
    path = files.key_file
    try:
        key = load_pem_private_key(_read("key_file", path), password=None)
    except TypeError:
        raise Invalid("key_file", f"{path} is encrypted; it must be a PEM key without a passphrase") from None
    except ValueError:
        raise Invalid("key_file", f"{path} must hold a private key in PEM form") from None
    return Pair(chain, key.public_key().public_bytes(*_PUBLIC), authorities)


def check(files: TlsFiles) -> Identity | None:
    """The identity in the certificate; ``None`` if it states none.

    Raises ``Invalid``, as ``read_pair`` does, for files that can't be used.
    """
    pair = read_pair(files)
    if not pair.fits:
        raise Invalid("key_file", f"{files.key_file} is not the key of the certificate in {files.crt_file}")
    return pair.own.identity


def check_use(server: GrpcServerSettings, role: Role) -> Identity | None:
    """Check the files as ``check`` does, and whether a process of that role can use them, which must use TLS.

    Raises ``Invalid`` with ``ca_file`` or ``peer_names`` if that key contradicts the certificate.
    """
    assert server.tls is not None
    identity = check(server.tls)
    if identity is None:
        return None
    if identity.role is not role:
        raise Invalid("crt_file", f"is the certificate of {identity}, and a {role.value} needs one of a {role.value}")
    if server.tls.ca_file is None:
        raise Invalid("ca_file", f"is not set; with the certificate of {identity} it must name ca.pem of its authority")
    if server.peer_names is not None:
        raise Invalid("peer_names", f"is for a foreign authority; the certificate of {identity} says who may call")
    return identity


def identity_of(files: TlsFiles | None) -> Identity | None:
    """The identity in the certificate; ``None`` without TLS. Raises ``Invalid`` if it can't be read."""
    return None if files is None else _own(_certificates("crt_file", files.crt_file)[0]).identity


def read_revoked(path: Path) -> frozenset[int]:
    """Read the serials of revoked certificates. Raises ``Invalid`` of ``revoked`` for an unusable file."""
    try:
        # not blocking, as another kind of file may
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Invalid("revoked", "is not a file")
            content = file.read(REVOKED_MAX_BYTES + 1)
        if len(content) > REVOKED_MAX_BYTES:
            raise Invalid("revoked", f"has more than {REVOKED_MAX_BYTES} bytes")
        return parse_serials(content.decode("utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise Invalid("revoked", f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid("revoked", f"{path} is no text") from None
    except Invalid as error:
        raise Invalid("revoked", f"{path}: {error.problem}") from None


def _own(certificate: Certificate) -> Presented:
    try:
        return presented(certificate)
    except Invalid as error:
        raise Invalid("crt_file", error.problem) from None


def _certificates(field: str, path: Path) -> Sequence[Certificate]:
    try:
        return load_pem_x509_certificates(_read(field, path))
    except ValueError:
        raise Invalid(field, f"{path} must hold a certificate in PEM form") from None


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(field, f"{path} can't be read: {error.strerror}") from None
