"""Checks workers as the scheduler sees them: connections in both directions, version, clock and disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from scheduler.cli.checks.findings import Finding, Severity, error, note, ok, warning
from scheduler.cli.checks.machines import check_clock, check_disk
from scheduler.cli.wording import Object, moment, printable
from scheduler.client import Disk

#: A worker that was heard from within so many seconds can reach the scheduler.
HEARD_RECENTLY_SECONDS = 60.0

#: Workers that are all shown, at most. If there are more, only the findings of those with problems are shown.
MAX_LISTED_WORKERS = 20


def check_workers(workers: Sequence[Object], version: str | None, now: float) -> Iterator[Finding]:
    """Check all workers. ``version`` is the scheduler's or ``None``, ``now`` POSIX time by the scheduler's clock."""
    if not workers:
        yield warning(
            "workers",
            "No worker has registered, so no job can run",
            "Start one on each machine: `twistd worker -c worker.toml`, its [scheduler] addr naming this scheduler",
        )
    elif all(worker["state"] == "offline" for worker in workers):
        yield warning(
            "workers",
            "Every worker is offline, so no job can run",
            "Start `twistd worker -c worker.toml` on one of their machines",
        )
    found = [list(check_worker(worker, version, now)) for worker in workers]
    if len(workers) <= MAX_LISTED_WORKERS:
        yield from chain.from_iterable(found)
        return
    well = [findings for findings in found if not any(finding.severity.wrong for finding in findings)]
    yield ok("workers", f"{len(well)} of {len(workers)} workers have nothing wrong")
    yield from (finding for finding in chain.from_iterable(found) if finding.severity is not Severity.OK)


def check_worker(worker: Object, version: str | None, now: float) -> Iterator[Finding]:
    """Check a worker in all respects."""
    subject = f"worker {worker['name']}"
    yield _check_ways(subject, worker, now)
    if worker["draining"]:
        yield note(
            subject,
            "It is drained, and takes no new jobs",
            f"`schedctl resume {worker['name']}` lets it take jobs again",
        )
    own = worker.get("version")
    if own is not None and version is not None and own != version:
        yield warning(
            subject,
            f"It has version {printable(own)}, the scheduler {version}",
            "Install the same version on both; the scheduler first",
        )
    difference, disk = worker.get("clock_difference"), worker.get("disk")
    if difference is not None:
        finding = check_clock(subject, difference)
        if finding.severity.wrong:
            yield finding
    if disk is not None:
        findings = check_disk(subject, Disk(disk["size"], disk["free"], disk["inodes"], disk["inodes_free"]))
        yield from (finding for finding in findings if finding.severity.wrong)


def _check_ways(subject: str, worker: Object, now: float) -> Finding:
    """Check the connections from the worker to the scheduler, and back."""
    name, reason = worker["name"], worker.get("reason")
    if worker["state"] == "online":
        if reason is None:
            return ok(subject, "It is online: scheduler and worker reach each other")
        return warning(subject, f"It is online, but takes no jobs: {printable(reason)}", f"Remove that cause on {name}")
    if worker["state"] == "offline":
        return note(
            subject,
            f"It is offline: {printable(reason or 'it deregistered')}",
            f"Start it on {name} to use it again. If {name} is gone for good: `schedctl forget {name}`",
        )
    sentence = f"It is unreachable: {printable(reason or 'no reason is known')}"
    seen = moment(worker.get("last_seen"))
    if "certificate" in (reason or ""):
        return error(
            subject,
            sentence,
            "Check the certificates of both: `schedctl doctor --config FILE` on the scheduler's machine, and on "
            f"{name}; docs/operations.md, When certificates are refused, explains the reasons",
        )
    if seen is not None and now - seen < HEARD_RECENTLY_SECONDS:
        return error(
            subject,
            f"{sentence}. It calls the scheduler, and the scheduler can't call it at {worker['address']}",
            "Open that port in the firewall; or set advertise_addr in its worker.toml, and the names in its "
            "certificate, to what the scheduler can dial",
        )
    return error(
        subject,
        f"{sentence}. The scheduler does not hear from it",
        f"See on {name} whether its worker runs, and what its log says; `schedctl doctor --config worker.toml` there "
        f"checks its way to the scheduler. If {name} is gone for good: `schedctl forget {name}`",
    )
