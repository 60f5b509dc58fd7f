"""Certificates for serving and for dialling.

Changed files are read again, so a rotation needs no restart: a server reads them at the next handshake, a client for
its next call, which gets a new channel. If a file can't be read, the files do not match, or the certificate states
another identity, the previous certificates stay in use.
"""

from __future__ import annotations

import grpc

from scheduler.daemon.rotation import Current
from scheduler.daemon.servers import TlsFiles


def for_server(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials for serving. With a ``ca_file``, clients must present a certificate that this authority signed."""
    current = Current(files, _configuration)
    served = current.get()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Answer grpc, which calls this at each handshake. ``None`` keeps the present certificates."""
        nonlocal served
        before, served = served, current.get()
        return None if served is before else served

    return grpc.dynamic_ssl_server_credentials(
        served,
        fetch,  # type: ignore[arg-type]  # None is documented by grpc, not in its stubs
        require_client_authentication=files.ca_file is not None,
    )


def for_client(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials for dialling. Without a ``ca_file`` the system's authorities are trusted."""
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
