"""Reads the certificates that ``[grpc_server]`` names, and checks that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Invalid

_PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@frozen
class Pair:
    """A certificate and its key, and the trusted authorities."""

    #: The certificate, followed by those between it and its authority.
    chain: Sequence[Certificate]
    #: The public half of the private key, DER.
    key: bytes
    #: Only the owner and the group can read the key.
    key_private: bool
    authorities: Sequence[Certificate] = ()

    @property
    def fits(self) -> bool:
        """Whether the key is that of the certificate."""
        return self.key == public_key(self.chain[0])


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
    return Pair(chain, key.public_key().public_bytes(*_PUBLIC), not path.stat().st_mode & 0o007, authorities)


def check(files: TlsFiles) -> None:
    """Raise ``Invalid``, as ``read_pair`` does, for files that can't be used."""
    if not read_pair(files).fits:
        raise Invalid("key_file", f"{files.key_file} is not the key of the certificate in {files.crt_file}")


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
