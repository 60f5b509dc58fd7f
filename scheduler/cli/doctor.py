"""``schedctl doctor``: looks for problems and says how to solve them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import click
from attrs import asdict

from scheduler.cli.checks import installations, service
from scheduler.cli.checks.findings import Finding, Severity, note
from scheduler.cli.checks.workers import check_workers
from scheduler.cli.contexts import DEFAULT_URL, Connection
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import json_line, paint
from scheduler.cli.wording import Object, printable
from scheduler.daemon.config import SchedulerConfig
from scheduler.daemon.tomlfile import ConfigError
from scheduler.net import join_address

#: The exit code if there is a problem.
WRONG = 1

_COLOURS = {Severity.OK: "green", Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "red"}


@click.command(
    "doctor",
    epilog="\b\nExamples:\n"
    "  schedctl doctor\n"
    "  schedctl doctor --config /etc/scheduler/worker.toml\n"
    "  schedctl doctor --json | jq -r 'select(.severity == \"error\") | .advice'\n",
)
@click.option(
    "--config",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(),
    help="Check the scheduler or worker of this machine that FILE configures, too; may be repeated.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="A line of JSON for each finding: severity subject sentence advice."
)
@pass_session
def command(session: Session, files: Sequence[str], as_json: bool) -> int:
    """Look for what is wrong, and say what to do about it.

    Checks the scheduler (does it answer, is it ready, which version, do the clocks agree), each worker (in both
    directions, its version, clock, disk and inodes), and with --config the files of this machine: configuration,
    ports, certificates and their expiry, disk, and whether the scheduler can be reached.

    The exit code is 0 if all is well, 1 if there is a warning or an error.
    """
    wrong = False
    listed: list[Sequence[Object]] = []
    checks: list[Iterator[Finding]] = [_check_cluster(session.connection, files, listed)]
    checks += [installations.inspect(file, listed) for file in files]
    for finding in chain.from_iterable(checks):
        wrong = wrong or finding.severity.wrong
        click.echo(json_line(_document(finding)) if as_json else _text(finding))
    return WRONG if wrong else 0


def _check_cluster(connection: Connection, files: Sequence[str], listed: list[Sequence[Object]]) -> Iterator[Finding]:
    """Check the chosen scheduler and its workers. On a worker's machine the scheduler may be out of reach over HTTP.

    The workers that the scheduler lists are added to ``listed``.
    """
    if (connection.url, connection.source) == (DEFAULT_URL, Connection(DEFAULT_URL).source) and files:
        found = _scheduler_of(files)
        if found is None:
            yield note(
                "scheduler",
                "It was not asked over HTTP, as no address was given",
                "Give one: --url, --context or SCHEDULER_URL",
            )
            return
        connection = found._replace(token=connection.token, ca_file=connection.ca_file or found.ca_file)
    version = service.ask(connection, "/v1/version")
    # A scheduler that does not answer is not asked again, because each request would take ten more seconds.
    ready = service.ask(connection, "/readyz") if isinstance(version, service.Answer) else version
    yield from service.check_service(connection, version, ready)
    workers = service.ask(connection, "/v1/workers") if isinstance(version, service.Answer) else version
    if isinstance(version, service.Answer) and isinstance(workers, service.Answer) and workers.status == 200:
        now = workers.here if workers.date is None else workers.date
        listed.append(workers.document["workers"])
        yield from check_workers(listed[0], version.document.get("version"), now)
    if not files:
        yield note(
            "configuration", "No file of this machine was checked", "Give the scheduler's or worker's: --config FILE"
        )


def _scheduler_of(files: Sequence[str]) -> Connection | None:
    """The HTTP address of the scheduler among the configured programs; ``None`` if there is none, or it is unknown."""
    for file in files:
        try:
            config = installations.load(file)
        except ConfigError:
            continue
        if isinstance(config, SchedulerConfig):
            endpoints = installations.look_at(config).endpoints or {}
            address = endpoints.get("http_server", config.http_server.addr)
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
            if not address.port:
                return None
            if config.http_server.tls is None:
                return Connection(f"http://{join_address(host, address.port)}", source=file)
            named, ca_file = installations.https_access(config, host)
            return Connection(f"https://{join_address(named, address.port)}", ca_file=ca_file, source=file)
    return None


def _document(finding: Finding) -> dict[str, str | None]:
    return {**asdict(finding), "severity": finding.severity.value, "advice": finding.advice or None}


def _text(finding: Finding) -> str:
    severity = paint(f"{finding.severity.value:<8}", _COLOURS[finding.severity])
    lines = [f"{severity}{printable(finding.subject)}: {_ended(printable(finding.sentence))}"]
    if finding.advice:
        lines.append(f"        {_ended(printable(finding.advice))}")
    return "\n".join(lines)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence}."
