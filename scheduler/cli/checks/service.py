"""Checks the scheduler's HTTP API: its answer, readiness, version and clock."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from cryptography.x509 import load_der_x509_certificate

from scheduler import __version__
from scheduler.cli.checks.certificates import check_validity
from scheduler.cli.checks.findings import Finding, error, ok, warning
from scheduler.cli.checks.machines import check_clock
from scheduler.cli.contexts import Connection
from scheduler.cli.wording import printable

#: Seconds within which an answer must come.
ANSWER_TIMEOUT = 10.0

#: Seconds by which the header Date may be behind, because it has whole seconds.
_DATE_RESOLUTION = 1.0


@frozen
class Answer:
    """The answer to a GET."""

    status: int
    #: The JSON object in the answer's body; ``{}`` if there is none.
    document: dict[str, Any]
    #: The POSIX time in the header Date; ``None`` without that header.
    date: float | None
    #: This machine's POSIX time in the middle of the request.
    here: float
    #: Seconds from the request to the answer.
    took: float
    #: The server's certificate (DER), for an https URL.
    certificate: bytes | None = None


@frozen
class NoAnswer:
    """No answer came."""

    #: The reason, like ``connection refused``.
    problem: str
    advice: str


def ask(connection: Connection, path: str) -> Answer | NoAnswer:
    """Send a GET for ``path``. ``scheduler.client`` is not used, because it hides the facts that are checked here."""
    parts = urlsplit(connection.url)
    headers = {"Authorization": f"Bearer {connection.token}"} if connection.token else {}
    try:
        opened = _open(connection)
    except OSError as problem:
        return NoAnswer(
            f"ca_file {connection.ca_file} can't be used: {problem.strerror}",
            "Correct --ca-file, SCHEDULER_CA_FILE, or ca_file of the context in schedctl.toml",
        )
    try:
        with contextlib.closing(opened):
            opened.connect()
            certificate = opened.sock.getpeercert(True) if isinstance(opened.sock, ssl.SSLSocket) else None
            sent, began = time.time(), time.monotonic()
            opened.request("GET", parts.path + path, headers=headers)
            answer = opened.getresponse()
            took = time.monotonic() - began
            body = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return _no_answer(problem, parts.scheme == "https")
    if parts.scheme == "http" and answer.status == 400 and b"speaks HTTPS" in body:
        return NoAnswer("that port speaks HTTPS", "Use https:// in the URL")
    return Answer(answer.status, _object(body), _date(answer.headers["Date"]), sent + took / 2, took, certificate)


def _open(connection: Connection) -> http.client.HTTPConnection:
    parts = urlsplit(connection.url)
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.netloc, timeout=ANSWER_TIMEOUT)
    context = ssl.create_default_context(cafile=connection.ca_file)
    return http.client.HTTPSConnection(parts.netloc, timeout=ANSWER_TIMEOUT, context=context)


def _no_answer(problem: Exception, tls: bool) -> NoAnswer:
    other = "give another address (--url, --context or SCHEDULER_URL)"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return NoAnswer(
            f"its certificate is not accepted: {problem.verify_message}",
            "Trust its authority: --ca-file, SCHEDULER_CA_FILE, or ca_file of the context in schedctl.toml; or dial a "
            "name that the certificate is for",
        )
    if isinstance(problem, ssl.SSLError):
        return NoAnswer(f"TLS fails: {problem.reason or problem}", "Use http:// if no TLS is served there")
    if isinstance(problem, socket.gaierror):
        return NoAnswer(f"the name does not resolve: {problem.strerror}", f"Check the name, or {other}")
    if isinstance(problem, TimeoutError):
        plain = "use http:// if no TLS is served there, " if tls else ""
        return NoAnswer(
            "no answer in time",
            f"See whether it hangs (its log), check the network and firewalls on the way, {plain}or {other}",
        )
    if isinstance(problem, ConnectionRefusedError):
        return NoAnswer(
            "nothing listens there", f"Start it (`twistd scheduler -c scheduler.toml`, then see its log), or {other}"
        )
    if isinstance(problem, OSError) and not isinstance(problem, http.client.HTTPException):
        return NoAnswer((problem.strerror or str(problem)).lower(), f"Check the network, or {other}")
    return NoAnswer(f"what answers does not speak HTTP ({type(problem).__name__})", f"Check the port, or {other}")


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def check_service(connection: Connection, version: Answer | NoAnswer, ready: Answer | NoAnswer) -> Iterator[Finding]:
    """Check the answers to ``/v1/version`` and ``/readyz``."""
    where = f"{connection.url} ({connection.source})"
    if isinstance(version, NoAnswer):
        yield error("scheduler", f"It can't be asked at {where}: {version.problem}", version.advice)
        return
    if version.status in (401, 403):
        yield error(
            "scheduler",
            f"It refuses to answer at {where}: {printable(str(version.document.get('detail', version.status)))}",
            "Give a token that it accepts: --token, SCHEDULER_TOKEN, or token of the context in schedctl.toml"
            if version.status == 401
            else "Use a name or an address that the scheduler accepts (allowed_hosts in its configuration)",
        )
        return
    if version.status != 200 or not isinstance(version.document.get("version"), str):
        yield error(
            "scheduler",
            f"What answers at {where} is no scheduler of this version: GET /v1/version is {version.status}",
            "Check the address; of an older scheduler, install the version of schedctl",
        )
        return
    yield ok("scheduler", f"It answers at {where} within {version.took * 1000:.0f} ms")
    yield _check_ready(ready)
    if isinstance(ready, Answer):
        for note in ready.document.get("notes") or ():
            yield warning("scheduler", f"It notes: {printable(str(note))}", "See docs/operations.md for what to do")
    yield _check_version(version.document["version"])
    if version.date is not None:
        # Half of the round trip, and the half second that Date does not show on average.
        ahead = version.date + _DATE_RESOLUTION / 2 - version.here
        yield check_clock("clock", ahead, version.took / 2 + _DATE_RESOLUTION / 2)
    if version.certificate is not None:
        served = load_der_x509_certificate(version.certificate)
        yield from check_validity("certificate", served, "The certificate of the scheduler", datetime.now(UTC))


def _check_ready(ready: Answer | NoAnswer) -> Finding:
    if isinstance(ready, NoAnswer):
        return error("scheduler", f"/readyz has no answer: {ready.problem}", ready.advice)
    if ready.status == 200:
        return ok("scheduler", "It is ready to take jobs")
    reasons = ready.document.get("reasons") or ready.document.get("detail") or f"/readyz is {ready.status}"
    shown = "; ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons)
    return error(
        "scheduler",
        f"It takes no new jobs: {printable(shown)}",
        "See its log; if its database fails, check the disk of state_dir, or the server that [store] url names",
    )


def _check_version(theirs: str) -> Finding:
    if theirs == __version__:
        return ok("version", f"schedctl and scheduler both have version {__version__}")
    return warning(
        "version",
        f"schedctl has version {__version__}, the scheduler {printable(theirs)}",
        f"Install version {printable(theirs)} of scheduler-gateway here, or {__version__} there",
    )
