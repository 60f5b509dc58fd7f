"""Jobs as users name them: by an id, or a prefix of one."""

from collections.abc import Iterator
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.failures import Failure
from scheduler.cli.naming import resolve
from scheduler.client import Client, Job

ID_CHARACTERS = "0f3c9a12-7025-43e8-aa06-49f078cc5375"


class Jobs:
    """A client of a scheduler with these jobs."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids
        self.asked: list[str] = []

    def jobs(self, id_prefix: str) -> Iterator[Job]:
        self.asked.append(id_prefix)
        for each in self.ids:
            if each.startswith(id_prefix):
                fields: dict[str, Any] = {"command": "make", "args": [each[-1]]}
                yield Job.from_json({"id": each, "state": "running", **fields})


class ResolveTests(SynchronousTestCase):
    def resolve(self, text: str, *ids: str) -> str:
        return resolve(cast(Client, Jobs(*ids)), text)

    def refused(self, text: str, *ids: str) -> Failure:
        with self.assertRaises(Failure) as caught:
            self.resolve(text, *ids)
        self.assertEqual(caught.exception.code, 125)
        return caught.exception

    def test_unique(self) -> None:
        """A prefix of a single job is resolved to it."""
        self.assertEqual(self.resolve("0f3c9a", ID_CHARACTERS, "77d1e0ab"), ID_CHARACTERS)

    def test_whole(self) -> None:
        """A whole id is not looked up, because the command itself finds out whether the job exists."""
        jobs = Jobs()
        self.assertEqual(resolve(cast(Client, jobs), ID_CHARACTERS), ID_CHARACTERS)
        self.assertEqual(jobs.asked, [])

    def test_exact(self) -> None:
        """A worker's own id may be short, and a prefix of another id."""
        self.assertEqual(self.resolve("job-12", "job-123", "job-12"), "job-12")

    def test_unknown(self) -> None:
        """An unknown or too short prefix is refused."""
        self.assertIn("no job has an id that begins with '0f3c9a'", self.refused("0f3c9a", "77d1e0ab").message)
        for text in ("", "0f3c9", ".."):
            self.assertIn("too short", self.refused(text, ID_CHARACTERS).message)

    def test_ambiguous(self) -> None:
        """For an ambiguous prefix the jobs are listed with their commands, ten at most."""
        step = self.refused("0f3c9a", ID_CHARACTERS, "0f3c9a-2").next_step.splitlines()
        self.assertEqual(len(step), 3)
        self.assertIn(f"{ID_CHARACTERS}  (not started)  make 5", step[1])
        step = self.refused("0f3c9a", *(f"0f3c9a-{number}" for number in range(20))).next_step.splitlines()
        self.assertEqual((len(step), step[-1]), (12, "  ..."))
