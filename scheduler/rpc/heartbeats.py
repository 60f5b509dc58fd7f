"""Heartbeats and their answers: conversion between gRPC messages and values.

A worker of a later version, or with a damaged record, must stay usable. So only the unreadable parts of a heartbeat are
refused, and the rest counts.

Excess parts are refused in the same way. A heartbeat is applied at once, on the reactor thread, and a message has room
for 400,000 ids, which would block the reactor for a second. A worker of ours sends fewer than ``REPORTS_MAX`` reports.
If it runs more than ``RUNNING_MAX`` jobs, nothing is lost: the scheduler asks by id about jobs that a heartbeat does
not mention, and an end that is not acknowledged is reported again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from scheduler.errors import Invalid, NotFound
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport
from scheduler.model import Disk
from scheduler.names import is_id
from scheduler.pb import scheduler_pb2
from scheduler.rpc.convert import END_OF_TIME, checked_id, checked_seconds, report_from_pb, report_to_pb
from scheduler.texts import bounded_text

#: Reports of ended jobs, and descriptions, accepted in one heartbeat. A worker of ours sends at most 1,718.
REPORTS_MAX = 2_048

#: Ids of running jobs accepted in one heartbeat.
RUNNING_MAX = 20_000

#: Bytes of an invalid id that are shown.
_ID_SHOWN_BYTES = 80

#: The largest integer of a message.
_INTEGER_MAX = 2**63 - 1


def heartbeat_to_pb(heartbeat: Heartbeat) -> scheduler_pb2.HeartbeatReq:
    """The message for a heartbeat."""
    return scheduler_pb2.HeartbeatReq(
        workerID=heartbeat.worker_id,
        bootID=heartbeat.boot_id,
        running=heartbeat.running,
        ended=map(report_to_pb, heartbeat.ended),
        described=map(report_to_pb, heartbeat.described),
        leaving=heartbeat.leaving,
        refusing=heartbeat.refusing,
        sentAt=heartbeat.sent_at or 0,
        disk=None if heartbeat.disk is None else _disk_to_pb(heartbeat.disk),
        nonce=heartbeat.nonce,
        commitCount=heartbeat.commit_count,
    )


def _disk_to_pb(disk: Disk) -> scheduler_pb2.Disk:
    return scheduler_pb2.Disk(
        size=min(disk.size, _INTEGER_MAX),
        free=min(disk.free, _INTEGER_MAX),
        inodes=min(disk.inodes, _INTEGER_MAX),
        inodesFree=min(disk.inodes_free, _INTEGER_MAX),
    )


def _disk_from_pb(disk: scheduler_pb2.Disk) -> Disk | None:
    """The disk in a message; ``None`` if a number is negative, which is no reason to refuse the heartbeat."""
    numbers = disk.size, disk.free, disk.inodes, disk.inodesFree
    return None if min(numbers) < 0 else Disk(*numbers)


def heartbeat_from_pb(message: scheduler_pb2.HeartbeatReq) -> Heartbeat:
    """The readable parts of a heartbeat, the first for each job; ``refused`` says why other parts are not accepted.

    Raises ``Invalid`` without a boot id, ``NotFound`` if the worker id can't be from a scheduler of ours.
    """
    if not is_id(message.workerID):
        raise NotFound("worker", bounded_text(message.workerID, _ID_SHOWN_BYTES))
    if not message.bootID:
        raise Invalid("bootID", "is empty; a worker that sends heartbeats says which boot of its machine it is in")
    refused: dict[str, str] = {}
    return Heartbeat(
        worker_id=message.workerID,
        boot_id=message.bootID,
        running=_running_from_pb(message.running, refused),
        ended=_reports_from_pb("ended", message.ended, refused),
        described=_reports_from_pb("described", message.described, refused),
        leaving=message.leaving,
        refusing=message.refusing,
        sent_at=message.sentAt if 0 < message.sentAt <= END_OF_TIME else None,
        disk=_disk_from_pb(message.disk) if message.HasField("disk") else None,
        nonce=message.nonce,
        commit_count=message.commitCount,
        refused=refused,
    )


def _running_from_pb(job_ids: Sequence[str], refused: dict[str, str]) -> tuple[str, ...]:
    _refuse_rest("running", len(job_ids), RUNNING_MAX, refused)
    found: dict[str, None] = {}
    for job_id in islice(job_ids, RUNNING_MAX):
        try:
            found[checked_id("running", job_id)] = None
        except Invalid as error:
            _refuse(job_id, error, refused)
    return tuple(found)


def _reports_from_pb(
    field: str, reports: Sequence[scheduler_pb2.JobReport], refused: dict[str, str]
) -> tuple[JobReport, ...]:
    _refuse_rest(field, len(reports), REPORTS_MAX, refused)
    found: dict[str, JobReport] = {}
    for report in islice(reports, REPORTS_MAX):
        job_id = report.status.jobID
        if job_id in found:
            continue
        try:
            found[job_id] = report_from_pb(report)
        except Invalid as error:
            _refuse(job_id, error, refused)
    return tuple(found.values())


def _refuse(job_id: str, error: Invalid, refused: dict[str, str]) -> None:
    refused.setdefault(bounded_text(job_id, _ID_SHOWN_BYTES), str(error))


def _refuse_rest(field: str, count: int, most: int, refused: dict[str, str]) -> None:
    if count > most:
        refused[f"field {field}"] = f"has {count} entries; the first {most} are taken"  # no id has a space in it


def answer_to_pb(answer: HeartbeatAnswer) -> scheduler_pb2.HeartbeatRes:
    """The message for an answer to a heartbeat."""
    return scheduler_pb2.HeartbeatRes(
        lease=answer.lease,
        acknowledged=answer.acknowledged,
        describe=answer.describe,
        registerAgain=answer.register_again,
        commitCount=answer.commit_count,
        reportAll=answer.report_all,
    )


def answer_from_pb(message: scheduler_pb2.HeartbeatRes) -> HeartbeatAnswer:
    """The answer to a heartbeat in a message. Raises ``Invalid`` for an impossible lease."""
    return HeartbeatAnswer(
        lease=checked_seconds("lease", message.lease),
        acknowledged=tuple(message.acknowledged),
        describe=tuple(message.describe),
        register_again=message.registerAgain,
        commit_count=message.commitCount,
        report_all=message.reportAll,
    )
