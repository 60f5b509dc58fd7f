"""Watching a job whose events are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.interrupts import Interrupts
from scheduler.cli.status import Status
from scheduler.cli.watch import Watch
from scheduler.client import ApiProblem, Changed, Client, ClientError, ConnectionFailed, Ended, Event, Job, OutputLost


def job(state: str, job_id: str = "j1", **fields: Any) -> Job:
    return Job.from_json({"id": job_id, "state": state, **fields})


class Scripted:
    """A client that follows with these events, by the id of the job; an exception is raised."""

    def __init__(self, **events: list[Event | Exception]) -> None:
        self._events = events
        self.waited: list[str] = []

    def follow(self, job_id: str) -> Iterator[Event]:
        for event in self._events[job_id]:
            if isinstance(event, Exception):
                raise event
            yield event

    def wait(self, job_id: str) -> Job:
        self.waited.append(job_id)
        return job("succeeded", job_id)


class Deadlines:
    """Stands in for ``Interrupts`` and records the deadlines."""

    def __init__(self) -> None:
        self.set: list[float | None] = []

    def deadline(self, seconds: float | None) -> None:
        self.set.append(seconds)


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.deadlines = Deadlines()
        self.status = Status(self.said.append, lambda: None, self.clock.seconds, updates=False)
        self.watch = Watch(
            self.status, cast(Interrupts, self.deadlines), 60.0, cast(Any, self.fail), self.clock.seconds
        )

    def until_end(self, accepted: Job | None = None, **events: list[Event | Exception]) -> Job:
        self.client = Scripted(**events)
        return self.watch.until_end(cast(Client, self.client), "j1", accepted)

    def test_quiet(self) -> None:
        """A job that runs and ends causes no message."""
        ended = job("failed", exit_code=3)
        self.assertIs(self.until_end(job("running"), j1=[Changed(job("running")), Ended(ended)]), ended)
        self.assertEqual(self.said, [])

    def test_attempts(self) -> None:
        """The next attempt is watched after the previous one, and each failure is shown."""
        first, last = job("failed", retried_by="j2", reason="exit status 1"), job("succeeded", "j2")
        self.assertIs(self.until_end(j1=[Ended(first)], j2=[Ended(last)]), last)
        self.assertEqual(self.said, ["schedctl: job j1 failed: exit status 1; trying again as job j2\n"])

    def test_cut_output(self) -> None:
        """Cut output and processes left running are shown."""
        self.until_end(j1=[Ended(job("succeeded", output_error="stdout: No space left", leftover=[7, 8]))])
        self.assertEqual(
            self.said,
            [
                "schedctl: the output of job j1 was cut: stdout: No space left\n",
                "schedctl: processes of job j1 could not be ended: 7, 8\n",
            ],
        )

    def test_lost_output(self) -> None:
        """Output that can't be read any more is shown and recorded, and the end is awaited."""
        self.assertEqual(self.until_end(j1=[OutputLost("it is gone")]).state, "succeeded")
        self.assertEqual((self.client.waited, self.watch.lost), (["j1"], "it is gone"))
        self.assertIn("it is gone", self.said[0])

    def test_core_worker(self) -> None:
        """The end of a job without output is awaited; any other problem is passed on."""
        unsupported = {"type": "/problems/unsupported", "detail": "worker 'w' does not support output"}
        self.assertEqual(self.until_end(j1=[ApiProblem(501, unsupported)]).state, "succeeded")
        self.assertIn("does not support output", self.said[0])
        for error in (ApiProblem(404, {}), ConnectionFailed("cut")):
            self.assertRaises(ClientError, self.until_end, j1=[error])

    def test_queued(self) -> None:
        """For a queued job the reason, the waiting time and the start are shown."""

        def events() -> Iterator[Event]:
            self.clock.advance(1)
            self.status.update()
            yield Changed(job("queued", waiting_for=waiting))
            self.clock.advance(11)
            self.status.update()
            yield Changed(job("running", worker_name="w1"))
            yield Ended(job("succeeded"))

        waiting = {"why": "no-free-slot", "detail": "all slots are taken", "place": 2}
        self.until_end(job("queued", waiting_for=waiting), j1=cast(Any, events()))
        self.assertEqual(
            self.said,
            [
                "schedctl: job j1 is queued, place 2: all slots are taken (1.0s)\n",
                "schedctl: job j1 starts on w1 after 12s in the queue\n",
            ],
        )

    def test_queued_in_other_words(self) -> None:
        """If the scheduler does not send ``waiting_for``, the reason is shown, if any."""
        for fields, text in (({"reason": "w1 is full"}, ": w1 is full"), ({}, "")):
            self.watch.seen(job("running"))
            self.said.clear()
            self.watch.seen(job("queued", **fields))
            self.clock.advance(1)
            self.status.update()
            self.assertEqual(self.said, [f"schedctl: job j1 is queued{text} (1.0s)\n"])

    def test_unknown(self) -> None:
        """While a job is unknown a deadline runs, which ends with that state."""

        def events() -> Iterator[Event]:
            yield Changed(job("unknown", reason="no sign of life for 43 s"))
            self.clock.advance(1)
            self.status.update()
            yield Changed(job("running"))
            yield Ended(job("succeeded"))

        self.until_end(job("running"), j1=cast(Any, events()))
        self.assertEqual([each for each in self.deadlines.set if each], [60.0])
        self.assertIsNone(self.deadlines.set[-1])
        self.assertEqual(
            self.said, ["schedctl: job j1 is unknown, waiting for its worker: no sign of life for 43 s (1.0s)\n"]
        )

    def test_end_that_is_not_saved(self) -> None:
        """A job whose end could not be saved yet is shown as before, with that reason."""
        reason = "it has ended, and its end can't be saved yet: database unavailable: disk full"

        def events() -> Iterator[Event]:
            yield Changed(job("running", reason=reason))
            self.clock.advance(1)
            self.status.update()
            yield Ended(job("succeeded"))

        self.until_end(job("running"), j1=cast(Any, events()))
        self.assertEqual(self.said, [f"schedctl: job j1 is running: {reason} (1.0s)\n"])

    def test_trouble(self) -> None:
        """A long break of the connection is shown once, and then the job's own wait again."""
        self.watch.seen(job("queued"))
        self.clock.advance(0.5)
        self.watch.trouble("connection refused")
        self.clock.advance(9)
        self.status.update()
        self.assertEqual(self.said, [])
        self.clock.advance(1)
        self.watch.trouble("connection reset")
        self.status.update()
        self.watch.trouble(None)
        self.clock.advance(1)
        self.status.update()
        self.assertEqual(
            self.said,
            [
                "schedctl: no connection to the scheduler, trying again: connection reset (10s)\n",
                "schedctl: job j1 is queued (12s)\n",
            ],
        )
