"""Workers, jobs and tokens for the tests of the cluster: valid, and short to write."""

from __future__ import annotations

from typing import Any

from scheduler.model import FEATURES, Job, JobSpec, JobState, Ref, RemovedJob, Worker
from scheduler.security.principals import Scope
from scheduler.security.token import Token
from scheduler.terms import Target


def a_worker(worker_id: str = "w-1", **changes: Any) -> Worker:
    """With four slots, of a machine that sends heartbeats, and of this version."""
    facts: dict[str, Any] = {
        "name": worker_id,
        "address": f"127.0.0.1:{30000 + sum(map(ord, worker_id))}",
        "labels": {"name": worker_id},
        "slots": 4,
        "boot_id": "boot",
        "features": frozenset(FEATURES),
    }
    if "features" in changes:
        changes["features"] = frozenset(changes["features"])
    return Worker(id=worker_id, **(facts | changes))


def a_job(
    job_id: str = "j-1", state: JobState = JobState.RUNNING, worker_id: str | None = "w-1", **changes: Any
) -> Job:
    """On ``w-1``, made at time 1000 by a client that named the worker."""
    target = Target(selector={}) if worker_id is None else Target(worker=worker_id)
    facts: dict[str, Any] = {
        "spec": JobSpec(command="true"),
        "created_at": 1000.0,
        "worker_name": worker_id,
        "target": target,
    }
    if state.final:
        facts["finished_at"] = 1001.0
    return Job(id=job_id, state=state, worker_id=worker_id, **(facts | changes))


def a_removal(job_id: str, when: float = 1000.0) -> tuple[Ref, RemovedJob]:
    """The records after a client removed a job that came without a key."""
    return Ref("job", job_id), RemovedJob(job_id, when)


def a_token(token_id: str = "abcd2345", **changes: Any) -> Token:
    """Made at time 1000 by root, for the workers of one zone; nobody knows its text."""
    facts: dict[str, Any] = {
        "name": token_id,
        "scope": Scope.RUN,
        "digest": "0f" * 32,
        "created_at": 1000.0,
        "created_by": "local:root",
        "reach": {"zone": "a"},
    }
    return Token(id=token_id, **(facts | changes))
