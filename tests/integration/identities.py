"""Certificates of real authorities for tests: pairs of a cluster's parties, and of foreign authorities."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from scheduler.daemon.certificates import read_pair
from scheduler.daemon.servers import TlsFiles
from scheduler.security.authority import issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role

SCHEDULER = Identity("lab", Role.SCHEDULER)


def replace_lines(path: Path, lines: Iterable[str]) -> None:
    """Put another file with these lines in the place of a file, at once."""
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(lines))
    os.replace(draft, path)


def worker_identity(name: str, cluster: str = "lab") -> Identity:
    """The identity of a worker of the cluster."""
    return Identity(cluster, Role.WORKER, name)


class Lab:
    """An authority of the cluster ``lab``, in a folder of its own."""

    def __init__(self, folder: Path, cluster: str = "lab") -> None:
        self.folder = folder
        make_authority(folder, cluster, datetime.now(UTC))
        self.certificate = folder / "ca.pem"

    def pair(self, identity: Identity, *hosts: str, file: str = "", age: timedelta = timedelta(0)) -> TlsFiles:
        """A pair that was issued ``age`` ago; it replaces the one in the same ``file``, by default of the same name."""
        name = file or identity.name or "scheduler"
        made = issue(open_authority(self.folder), identity, hosts, datetime.now(UTC) - age)
        certificate, key = write_pair(self.folder, name, *made, renew=True)
        return TlsFiles(certificate, key, self.certificate)

    def nameless(self, common_name: str) -> TlsFiles:
        """A pair whose certificate has a common name, and no other name."""
        authority = open_authority(self.folder)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(authority.key, hashes.SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        written = write_pair(self.folder, "nameless", certificate.public_bytes(Encoding.PEM), secret)
        return TlsFiles(*written, self.certificate)


def serial(files: TlsFiles) -> int:
    """The serial of the certificate."""
    return read_pair(files).own.serial
