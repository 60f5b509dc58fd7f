"""A client that answers with the test's values, and runs of ``schedctl`` with it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import scheduler.client
from scheduler.cli import main as cli
from scheduler.client import ApiProblem, ConnectionFailed, Job, Token, Version, Worker

JOB: Mapping[str, Any] = {
    "id": "5f3a9c21-3c57-4d0e-9f57-0f3d2a1b7c01",
    "worker_id": "w-1",
    "worker_name": "box",
    "state": "running",
    "reason": None,
    "command": "make",
    "args": ["-C", "/srv/a b"],
    "path": None,
    "cwd": None,
    "env": {},
    "labels": {},
    "script": None,
    "created_at": "2026-06-01T00:00:00.000000Z",
    "created_by": None,
    "started_at": "2026-06-01T00:00:01.000000Z",
    "finished_at": None,
    "exit_code": None,
    "signal": None,
    "orphan": False,
    "retry": None,
    "group_id": None,
}

WORKER: Mapping[str, Any] = {
    "id": "w-1",
    "name": "box",
    "address": "127.0.0.1:30000",
    "labels": {"name": "box", "gpu": "a100"},
    "slots": 4,
    "state": "online",
    "reason": None,
    "draining": False,
    "last_seen": "2026-06-01T00:00:00.000000Z",
    "running_jobs": 2,
    "version": "0.1.0",
    "features": [],
}

TOKEN: Mapping[str, Any] = {
    "id": "abcd2345ef",
    "name": "ci",
    "scope": "run",
    "workers": {"gpu": "1"},
    "created_at": "2026-06-01T00:00:00.000000Z",
    "created_by": "local:root",
    "expires_at": None,
    "expired": False,
    "last_used_at": None,
}


class StubClient:
    """The requests of ``schedctl`` and their answers. Errors that a test adds are raised."""

    def __init__(self) -> None:
        self.listed: list[Mapping[str, Any]] = []
        #: Entries of the audit.
        self.entries: list[Mapping[str, Any]] = []
        #: The filters of each list.
        self.filters: list[Mapping[str, Any]] = []
        self.all_workers: list[Mapping[str, Any]] = [WORKER]
        #: Requests other than lists: (request, name or id).
        self.asked: list[tuple[str, str]] = []
        #: (request, name or id) -> error.
        self.errors: dict[tuple[str, str], Exception] = {}
        #: The number of running jobs in each answer about a worker; the last number repeats.
        self.running: list[int] = [0]
        self.removed_at_once = True
        self.all_tokens: list[Mapping[str, Any]] = [TOKEN]
        #: The arguments of each ``create_token``.
        self.made: list[Mapping[str, Any]] = []
        self.draining: set[str] = set()

    def __call__(self, url: str, **options: Any) -> StubClient:
        """Called in place of the class."""
        self.url = url
        return self

    def __enter__(self) -> StubClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def jobs(self, *, limit: int | None = None, **filters: Any) -> Iterator[Job]:
        self.filters.append(filters)
        if ("jobs", filters.get("worker", "")) in self.errors:
            raise self.errors["jobs", filters["worker"]]
        states = filters.get("state", "").split(",")
        found = [
            data
            for data in self.listed
            if states == [""] or data["state"] in states
            if data["orphan"] == filters.get("orphan", data["orphan"])
        ]
        yield from (Job.from_json({**data}) for data in found[:limit])

    def job(self, job_id: str) -> Job:
        self._note("job", job_id)
        return next(Job.from_json({**data}) for data in self.listed if data["id"] == job_id)

    def remove(self, job_id: str) -> bool:
        self._note("remove", job_id)
        return self.removed_at_once

    def workers(self) -> list[Worker]:
        self._note("workers", "")
        return [Worker.from_json({**data}) for data in self.all_workers]

    def worker(self, name: str) -> Worker:
        self._note("worker", name)
        running = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        return Worker.from_json({**WORKER, "name": name, "running_jobs": running, "draining": name in self.draining})

    def drain(self, name: str) -> Worker:
        self._note("drain", name)
        self.draining.add(name)
        return Worker.from_json({**WORKER, "name": name, "draining": True})

    def resume(self, name: str) -> Worker:
        self._note("resume", name)
        return Worker.from_json({**WORKER, "name": name})

    def forget(self, name: str) -> None:
        self._note("forget", name)

    def create_token(self, name: str, scope: str, **more: Any) -> Token:
        self._note("create_token", name)
        self.made.append({"name": name, "scope": scope, **more})
        ends = "2099-01-01T00:00:00Z" if more["expires"] else None
        return Token.from_json({**TOKEN, "name": name, "expires_at": ends, "token": "sched_the_token"})

    def tokens(self) -> list[Token]:
        self._note("tokens", "")
        return [Token.from_json({**data}) for data in self.all_tokens]

    def revoke_token(self, token_id: str) -> None:
        self._note("revoke_token", token_id)

    def audit(self, *, limit: int | None = None, **filters: Any) -> Iterator[Mapping[str, Any]]:
        self.filters.append({name: value for name, value in filters.items() if value is not None})
        yield from self.entries[:limit]

    def version(self) -> Version:
        self._note("version", "")
        return Version("9.9", "v1")

    def _note(self, what: str, whom: str) -> None:
        self.asked.append((what, whom))
        if (what, whom) in self.errors:
            raise self.errors[what, whom]


class TerminalOut(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


class Case(SynchronousTestCase):
    """``schedctl`` with a ``StubClient``."""

    def setUp(self) -> None:
        self.client = StubClient()
        self.patch(scheduler.client, "Client", self.client)
        # The user's own environment is not read.
        self.patch(cli.os, "environ", {"XDG_CONFIG_HOME": "/nonexistent", "TERM": "xterm", "COLUMNS": "100"})

    def run_cli(self, *arguments: str, terminal: bool = False) -> tuple[int, str, str]:
        """The exit code, stdout and stderr."""
        out = TerminalOut() if terminal else io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
            code = cli.main(arguments)
        return code, out.getvalue(), err.getvalue()

    def out(self, *arguments: str, terminal: bool = False) -> str:
        """The stdout of a command that succeeds and writes nothing to stderr."""
        code, out, err = self.run_cli(*arguments, terminal=terminal)
        self.assertEqual((code, err), (0, ""))
        return out

    def refused(self, *arguments: str) -> str:
        """The stderr of a command that is refused."""
        code, out, err = self.run_cli(*arguments)
        self.assertEqual((code, out), (125, ""))
        return err


def unknown_worker(name: str) -> ApiProblem:
    """The problem for an unknown worker."""
    return ApiProblem(404, {"type": "/problems/worker-unknown", "detail": f"no worker {name!r}"})


def no_connection() -> ConnectionFailed:
    """The error if the scheduler does not answer."""
    return ConnectionFailed("can't reach the scheduler")
