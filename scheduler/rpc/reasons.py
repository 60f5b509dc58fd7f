"""Translates the details of a gRPC status into a short reason that users can act on.

gRPC explains a failed connection in a text for its own developers, whose words differ between versions. The texts below
are those of grpcio 1.85; ``tests/integration/test_rpc_reasons.py`` produces them with real servers. Any other text is
passed on as it is.
"""

from __future__ import annotations

import errno
import os
import re

from scheduler.texts import bounded_text

#: Bytes of a text that is passed on as it is.
_TEXT_MAX_BYTES = 200

#: gRPC's prefix of the details when no connection could be made.
_NO_CONNECTION = re.compile(r"failed to connect to all addresses; last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+: )?")

#: Texts of the TLS library about a certificate, each with the reason shown.
_CERTIFICATES = (
    ("certificate has expired", "certificate expired"),
    ("certificate is not yet valid", "certificate not yet valid"),
    ("unable to get local issuer certificate", "certificate signed by an unknown authority"),
    ("self signed certificate", "certificate signed by an unknown authority"),
)
_CERTIFICATE_REFUSED = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)")

#: TLS alerts with which the peer refuses the certificate of this side.
_ALERTS = re.compile(r"ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_\w+|ACCESS_DENIED)|CERTIFICATE_REQUIRED")

#: System errors, by number; gRPC shows the C library's text for them.
_SYSTEM = {
    errno.ECONNREFUSED: "connection refused",
    errno.ETIMEDOUT: "connection timed out",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
}

#: Texts for a connection that timed out: in TCP, in the TLS handshake, or after it.
_TOO_LATE = (
    "connect() timed out",
    "tcp handshaker shutdown",
    "Endpoint closing",
    "timed out before receiving SETTINGS",
)


def reason(details: str, verified: str, secure: bool, connect_seconds: float) -> str:
    """A few words that can end a sentence, from the details of a status that gRPC itself made.

    The certificate must be for the host or name ``verified``, if ``secure``. ``connect_seconds`` is the time a
    connection may take to come up.
    """
    text = _NO_CONNECTION.sub("", details, count=1)
    connecting = text != details
    if "Hostname Verification Check failed" in text:
        return f"no subject alternative name for {verified}"
    for said, short in _CERTIFICATES:
        if said in text:
            return short
    if refused := _CERTIFICATE_REFUSED.search(text):
        return bounded_text(f"certificate not accepted: {refused[1]}", _TEXT_MAX_BYTES)
    if _ALERTS.search(text):
        return "the peer does not accept the certificate that it is shown"
    if "WRONG_VERSION_NUMBER" in text:
        return "the peer does not speak TLS"
    if "Failed parsing HTTP/2" in text or "missing selected ALPN property" in text:
        return "the peer does not speak gRPC"
    if any(said in text for said in _TOO_LATE):
        return no_answer(connect_seconds)
    for number, short in _SYSTEM.items():
        if os.strerror(number) in text:
            return short
    if "Socket closed" in text:
        perhaps = "not accept the certificate that it is shown" if secure else "speak TLS alone"
        return f"the peer closed the connection: it may {perhaps}" if connecting else "connection closed"
    if "errors resolving" in text or "DNS resolution failed" in text:
        return "its name does not resolve"
    return bounded_text(text, _TEXT_MAX_BYTES)


def no_answer(seconds: float) -> str:
    """The reason if no answer came in time."""
    return f"no answer within {round(seconds, 1):g} s"
