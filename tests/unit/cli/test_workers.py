"""``schedctl workers``, ``drain``, ``resume``, ``forget``, ``rm`` and ``version``."""

import json
from typing import Any

from scheduler import __version__
from scheduler.cli import workers
from scheduler.client import ApiProblem
from tests.unit.cli.client import JOB, WORKER, Case, no_connection, unknown_worker

OTHER = f"6a{JOB['id'][2:]}"


class WorkersTests(Case):
    def test_table(self) -> None:
        """Columns: state and reason, jobs of slots, last seen, version, free disk, labels. Rows are sorted by name."""
        self.client.all_workers = [
            {
                **WORKER,
                "disk": {"size": 9, "free": 81_000_000_000, "inodes": 0, "inodes_free": 0},
                "reason": "disk full",
            },
            {**WORKER, "name": "a", "state": "unreachable", "draining": True, "slots": None, "last_seen": None},
            {**WORKER, "name": "c", "state": "offline", "draining": True, "reason": "it deregistered at noon"},
        ]
        titles, first, second, third = self.out("workers").splitlines()
        self.assertEqual(
            titles.replace("DISK FREE", "DISK").split(),
            ["NAME", "STATE", "JOBS", "SEEN", "VERSION", "DISK", "LABELS", "WHY"],
        )
        self.assertRegex(first, r"^a +unreachable, drained +2 +not yet +0\.1\.0 +gpu=a100$")
        self.assertRegex(second, r"^box +online +2/4 +\S.* ago +0\.1\.0 +81 GB +gpu=a100 +disk full$")
        self.assertRegex(third, r"^c +offline, drained +2/4 +\S.* ago +0\.1\.0 +gpu=a100 +it deregistered at noon$")

    def test_programs(self) -> None:
        """``--json`` and ``--format`` use the API's fields."""
        self.assertEqual(json.loads(self.out("workers", "--json")), WORKER)
        self.assertEqual(self.out("workers", "--format", "{name} {labels.gpu}"), "box a100\n")
        self.assertIn("no field {id2}", self.refused("workers", "--format", "{id2}"))

    def test_none(self) -> None:
        """Without workers a user gets a hint."""
        self.client.all_workers = []
        self.assertIn("schedctl doctor", self.run_cli("workers", terminal=True)[2])
        self.assertEqual(self.out("workers", "--json"), "")

    def test_unknown(self) -> None:
        """An unknown worker causes a sentence and a next step."""
        for command in ("drain", "resume", "forget"):
            self.client.errors[command, "x"] = unknown_worker("x")
            err = self.refused(command, "x")
            self.assertEqual(err, "schedctl: no worker 'x'\n`schedctl workers` lists the workers.\n")

    def test_near(self) -> None:
        """Names similar to an unknown one are suggested, in any case."""
        self.client.all_workers = [{**WORKER, "name": name} for name in ("box-1", "BOX-2", "other")]
        self.client.errors["drain", "box1"] = self.client.errors["drain", "zzz"] = unknown_worker("x")
        self.client.errors["forget", "Box-1"] = unknown_worker("x")
        self.assertIn("\nDid you mean box-1 or BOX-2? `schedctl workers` lists", self.refused("drain", "box1"))
        self.assertIn("\nDid you mean box-1 or BOX-2? ", self.refused("forget", "Box-1"))
        self.assertNotIn("Did you mean", self.refused("drain", "zzz"))
        self.client.errors["workers", ""] = no_connection()
        self.assertIn("\n`schedctl workers` lists", self.refused("drain", "box1"))

    def test_no_scheduler(self) -> None:
        """A scheduler that can't be reached causes a sentence and a next step."""
        self.client.errors["workers", ""] = no_connection()
        self.assertIn("schedctl doctor", self.refused("workers"))


class DrainTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.looks: list[float] = []
        self.patch(workers.time, "sleep", self.looks.append)

    def test_at_once(self) -> None:
        """Without --wait it returns when the scheduler knows; only users get a message."""
        code, out, err = self.run_cli("drain", "a", "b")
        self.assertEqual((code, out), (0, ""))
        self.assertEqual(err, "a is drained; 2 jobs still run there.\nb is drained; 2 jobs still run there.\n")
        self.assertEqual(self.client.asked, [("drain", "a"), ("drain", "b")])

    def test_wait(self) -> None:
        """``--wait`` waits until nothing runs there, and shows each number once."""
        self.client.running = [2, 2, 1, 0]
        code, out, err = self.run_cli("drain", "--wait", "a")
        self.assertEqual((code, out), (0, ""))
        self.assertEqual(
            err.splitlines(),
            [
                "a is drained; 2 jobs still run there.",
                "a is drained; 1 job still runs there.",
                "a is drained, and no job runs there.",
            ],
        )
        self.assertEqual(len(self.looks), 3)

    def test_time_over(self) -> None:
        """With --timeout it gives up after that time, with its own exit code."""
        self.client.running = [1]
        self.patch(workers.time, "monotonic", lambda: float(len(self.looks)))
        code, _, err = self.run_cli("drain", "--wait", "--timeout", "3s", "a", "b")
        self.assertEqual((code, len(self.looks)), (124, 3))
        self.assertIn("jobs still run on a, b. `schedctl resume a b`", err)
        self.assertIn("--timeout goes with --wait", self.refused("drain", "--timeout", "3s", "a"))

    def test_resumed_meanwhile(self) -> None:
        """A wait that can't end, because someone resumed the worker, fails."""
        self.client.running = [1]

        def resumed(_seconds: float) -> None:
            self.client.draining.clear()

        self.patch(workers.time, "sleep", resumed)
        code, _, err = self.run_cli("drain", "--wait", "a")
        self.assertEqual(code, 125)
        self.assertIn("was resumed by someone", err)

    def test_interrupted(self) -> None:
        """Ctrl-C ends the wait, with a hint how to undo the draining."""
        self.client.running = [1]

        def interrupt(_seconds: float) -> None:
            raise KeyboardInterrupt

        self.patch(workers.time, "sleep", interrupt)
        code, _, err = self.run_cli("drain", "--wait", "a")
        self.assertEqual(code, 130)
        self.assertIn("interrupted. `schedctl resume a` undoes the draining", err)

    def test_undone(self) -> None:
        """Resume and forget report what they did."""
        self.assertEqual(self.run_cli("resume", "a", "b")[2], "a takes jobs again.\nb takes jobs again.\n")
        self.assertEqual(self.run_cli("forget", "a"), (0, "", "a is forgotten.\n"))


class RemoveTests(Case):
    def test_removed(self) -> None:
        """``rm`` is silent if the job is removed, and says so if that happens later."""
        self.assertEqual(self.out("rm", JOB["id"], OTHER), "")
        self.assertEqual(self.client.asked, [("remove", JOB["id"]), ("remove", OTHER)])
        self.client.removed_at_once = False
        code, out, err = self.run_cli("rm", JOB["id"])
        self.assertEqual((code, out), (0, ""))
        self.assertIn("will be removed when its worker can be reached", err)

    def test_some_failed(self) -> None:
        """A job that can't be removed does not affect the others, and decides the exit code."""
        refusal: dict[str, Any] = {"type": "/problems/job-not-ended", "detail": "job is running"}
        self.client.errors["remove", JOB["id"]] = ApiProblem(409, refusal)
        self.assertIn("job is running\n`schedctl stop ID`", self.refused("rm", JOB["id"], OTHER))
        self.assertIn(("remove", OTHER), self.client.asked)


class VersionTests(Case):
    def test_both(self) -> None:
        """Both versions are shown, with the scheduler's URL."""
        self.assertEqual(
            self.out("version").splitlines(), [f"schedctl   {__version__}", "scheduler  9.9  (http://127.0.0.1:3000)"]
        )
        self.assertEqual(
            json.loads(self.out("version", "--json")),
            {"schedctl": __version__, "scheduler": "9.9", "url": "http://127.0.0.1:3000"},
        )

    def test_own(self) -> None:
        """schedctl's own version is shown even without a scheduler."""
        self.client.errors["version", ""] = no_connection()
        self.assertEqual(self.out("version", "--client"), f"schedctl   {__version__}\n")
        code, out, err = self.run_cli("version")
        self.assertEqual((code, out), (125, f"schedctl   {__version__}\n"))
        self.assertIn("can't reach the scheduler", err)
