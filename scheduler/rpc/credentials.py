"""Certificates for serving and for dialling, and what is wrong with them before anything starts.

The server reads its pair anew at each handshake after the files changed, so a
rotation needs no restart; a pair that can't be read keeps the one before. A
channel keeps the pair it was made with.
"""

from __future__ import annotations

import os
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from twisted.logger import Logger

from scheduler.config import TlsFiles
from scheduler.errors import Invalid

_log = Logger()


def check(files: TlsFiles) -> None:
    """``Invalid`` naming ``crt_file``, ``key_file`` or ``ca_file`` and what is wrong with the file."""
    certificates = _certificates("crt_file", files.crt_file)
    if files.ca_file is not None:
        _certificates("ca_file", files.ca_file)
    try:
        key = load_pem_private_key(_read("key_file", files.key_file), password=None)
    except TypeError:
        raise Invalid("key_file", f"{files.key_file} is encrypted; it must be a PEM key without a passphrase") from None
    except ValueError:
        raise Invalid("key_file", f"{files.key_file} must hold a private key in PEM form") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificates[0].public_key().public_bytes(*form):
        raise Invalid("key_file", f"{files.key_file} is not the key of the certificate in {files.crt_file}")


def _certificates(field: str, path: Path) -> list[Certificate]:
    try:
        return list(load_pem_x509_certificates(_read(field, path)))
    except ValueError:
        raise Invalid(field, f"{path} must hold a certificate in PEM form") from None


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(field, f"{path} can't be read: {error.strerror}") from None


def for_server(files: TlsFiles) -> grpc.ServerCredentials:
    """To serve with; with a ``ca_file`` a client must show a certificate it signed."""
    stamp = _stamp(files)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal stamp
        try:
            now = _stamp(files)
            if now == stamp:
                return None
            check(files)
            pair = _configuration(files)
        except (OSError, Invalid) as error:
            _log.warn("certificates stay as they were: {why}", why=str(error))
            return None
        stamp = now
        _log.info("certificates were read anew")
        return pair

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files),
        fetch,  # type: ignore[arg-type]  # None keeps the pair: documented by grpc, not in its stubs
        require_client_authentication=files.ca_file is not None,
    )


def for_client(files: TlsFiles) -> grpc.ChannelCredentials:
    """To dial with; without a ``ca_file`` the system's authorities are trusted."""
    return grpc.ssl_channel_credentials(
        root_certificates=files.ca_file.read_bytes() if files.ca_file is not None else None,
        private_key=files.key_file.read_bytes(),
        certificate_chain=files.crt_file.read_bytes(),
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key_file.read_bytes(), files.crt_file.read_bytes())],
        root_certificates=files.ca_file.read_bytes() if files.ca_file is not None else None,
    )


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    paths = [files.crt_file, files.key_file, *([files.ca_file] if files.ca_file is not None else [])]
    return tuple((found.st_mtime_ns, found.st_size, found.st_ino) for found in map(os.stat, paths))
