"""``schedctl ps`` and ``show``."""

import json
import os
import time
from typing import Any

from scheduler.cli import ps
from scheduler.cli.listing import JOB_FIELDS, WORKER_FIELDS
from scheduler.cli.show import describe
from scheduler.cli.wording import moment
from scheduler.model import Job, JobSpec, JobState, Presence, Worker
from scheduler.views import WorkerView
from scheduler.wire import job_json, worker_json
from tests.unit.cli.client import JOB, Case, no_connection, unknown_worker

OTHER = "6a000000-3c57-4d0e-9f57-0f3d2a1b7c02"
FAILED = {**JOB, "id": OTHER, "state": "failed", "exit_code": 2, "finished_at": "2026-06-01T00:01:04Z"}
ORPHAN = {**JOB, "id": "7b" + OTHER[2:], "state": "lost", "orphan": True, "created_at": "2026-06-02T00:00:00Z"}


class PsTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.client.listed = [FAILED, {**JOB}]

    def test_unfinished(self) -> None:
        """Without -a the unfinished jobs are listed, with the orphans among them, by time."""
        self.client.listed.append(ORPHAN)
        self.assertEqual(self.out("ps", "-q"), f"{ORPHAN['id']}\n{JOB['id']}\n")
        self.assertEqual(
            self.client.filters, [{"state": "queued,starting,running,unknown"}, {"orphan": True}], self.client.filters
        )
        self.assertIn("lost, runs", self.out("ps"))
        self.assertEqual(self.out("ps", "-q", "-n", "1"), f"{ORPHAN['id']}\n")

    def test_filters(self) -> None:
        """Options become filters of the API."""
        self.assertEqual(self.out("ps", "-a", "-q"), f"{OTHER}\n{JOB['id']}\n")
        self.assertEqual(self.client.filters.pop(), {})
        self.out(
            *("ps", "-a", "--on", "box", "--state", "failed,lost", "--state", "stopped", "-l", "a=1", "-l", "b=2=3"),
            *("--by", "ann", "--since", "12h", "--until", "2024-05-01T12:00:00Z", "--ended-since", "7d"),
            *("--ended-until", "1.5h", "--group", "g-1"),
        )
        self.assertEqual(
            self.client.filters.pop(),
            {
                "worker": "box",
                "state": "failed,lost,stopped",
                "label": {"a": "1", "b": "2=3"},
                "created_by": "ann",
                "created_after": "12h",
                "created_before": "2024-05-01T12:00:00.000000Z",
                "finished_after": "7d",
                "finished_before": "1.5h",
                "group_id": "g-1",
            },
        )

    def test_filters_of_ended_jobs(self) -> None:
        """A filter that implies ended jobs, or names states, needs no -a."""
        for option in (("--state", "failed"), ("--ended-since", "1h"), ("--ended-until", "1h"), ("--group", "g")):
            self.client.filters.clear()
            self.out("ps", "-q", *option)
            self.assertEqual(len(self.client.filters), 1, option)
            self.assertNotIn("orphan", self.client.filters[0])
        self.client.filters.clear()
        self.out("ps", "-q", "--on", "box", "--since", "1h")
        self.assertEqual(len(self.client.filters), 2)

    def test_local_time(self) -> None:
        """A time without a zone is in this machine's zone."""
        before = os.getenv("TZ")

        def zone(name: str | None) -> None:
            os.unsetenv("TZ") if name is None else os.putenv("TZ", name)
            time.tzset()

        self.addCleanup(zone, before)
        zone("<+0530>-5:30")
        self.out("ps", "-a", "--since", "2024-05-01 12:00")
        self.assertEqual(self.client.filters[0]["created_after"], "2024-05-01T06:30:00.000000Z")

    def test_unknown_worker(self) -> None:
        """For a name that is no worker's and no job's, similar names of workers are suggested."""
        self.client.listed = []
        self.client.errors["jobs", "bax"] = unknown_worker("bax")
        for options in ((), ("-q",), ("-a", "--json")):
            self.assertEqual(
                self.refused("ps", "--on", "bax", *options),
                "schedctl: no worker 'bax'\nDid you mean box? `schedctl workers` lists the workers.\n",
            )
        self.assertEqual(self.out("ps", "--on", "box", "-q"), "")
        self.assertEqual(self.client.asked, [("workers", "")] * 3)

    def test_mistakes(self) -> None:
        """An impossible value is refused before any request."""
        self.assertIn("'yesterday' is no time", self.refused("ps", "--since", "yesterday"))
        self.assertIn("'done' is not one of queued", self.refused("ps", "--state", "failed,done"))
        self.assertIn("must be like key=value", self.refused("ps", "-l", "team"))
        self.assertIn("-n", self.refused("ps", "-n", "0"))
        self.assertIn("no field {status}", self.refused("ps", "--format", "{status}"))
        self.assertIn("together", self.refused("ps", "--json", "--format", "{id}"))
        self.assertIn("together", self.refused("ps", "-q", "--json"))
        self.assertIn("terminal", self.refused("ps", "--watch"))
        self.assertEqual(self.client.filters, [])

    def test_table(self) -> None:
        """In a pipe a table is complete and plain, with one line per job."""
        long = {**JOB, "args": ["x" * 500, "a\nb"]}
        self.client.listed = [FAILED, long]
        lines = self.out("ps", "-a").splitlines()
        self.assertEqual(lines[0].split(), ["ID", "WORKER", "STATE", "AGE", "RAN", "EXIT", "COMMAND"])
        self.assertRegex(lines[1], r"^6a000000  box +failed +\S+( \S+)? +1m 3s +2  make -C '/srv/a b'$")
        self.assertTrue(lines[2].endswith(r"'a\nb'"), lines[2])
        self.assertEqual(len(lines), 3)

    def test_terminal(self) -> None:
        """On a terminal a table has colours and the terminal's width."""
        self.client.listed = [{**FAILED, "args": ["x" * 500]}]
        table = self.out("ps", "-a", terminal=True)
        self.assertIn("\x1b[31mfailed\x1b[0m", table)
        self.assertTrue(table.rstrip().endswith("…"), table)

    def test_nothing(self) -> None:
        """If nothing is found, a user gets a hint, and a program no lines."""
        self.client.listed = [FAILED]
        self.assertIn("schedctl ps -a", self.run_cli("ps", terminal=True)[2])
        self.assertEqual(self.out("ps", "-q"), "")
        self.assertEqual(self.out("ps", "--json"), "")

    def test_programs(self) -> None:
        """``--json`` prints one line per job: the API's object, with fields unknown to this version."""
        self.client.listed = [{**FAILED, "new": [1]}, {**JOB}]
        first, second = self.out("ps", "-a", "--json").splitlines()
        self.assertEqual(json.loads(first), {**FAILED, "new": [1]})
        self.assertEqual(json.loads(second), JOB)
        self.assertEqual(self.out("ps", "-a", "--format", r"{state}\t{exit_code}"), "failed\t2\nrunning\t\n")

    def test_watch(self) -> None:
        """``--watch`` redraws, shows failures meanwhile, and ends by Ctrl-C with 0."""
        looks = []

        def sleep(_seconds: float) -> None:
            looks.append(1)
            if len(looks) == 1:
                self.patch(self.client, "jobs", self._fail)
            elif len(looks) == 2:
                raise KeyboardInterrupt

        self.patch(ps.time, "sleep", sleep)
        out = self.out("ps", "--watch", terminal=True)
        _, first, second = out.split("\x1b[H")
        self.assertIn("make -C", first)
        self.assertIn("can't reach the scheduler", second)
        self.assertEqual(len(looks), 2)
        code, out, err = self.run_cli("ps", "--watch", terminal=True)
        self.assertEqual((code, out), (125, ""))
        self.assertIn("can't reach the scheduler", err)

    def _fail(self, **_: Any) -> Any:
        raise no_connection()

    def test_screen(self) -> None:
        """A redrawn table has no more lines than the terminal, and leaves nothing of the previous one."""
        self.patch(ps.shutil, "get_terminal_size", lambda: os.terminal_size((80, 5)))
        self.assertEqual(ps.screen("a\nb\n"), "\x1b[?7l\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h")
        lines = ps.screen("".join(f"{number}\n" for number in range(9))).split("\x1b[K\n")
        self.assertEqual(lines[2:], ["2", "... and 6 more", "\x1b[J\x1b[?7h"])


class FieldTests(Case):
    """``--format`` knows the fields of the API."""

    def test_fields(self) -> None:
        """Each field of the API can be used in a format."""
        job = Job("id", JobSpec("make"), JobState.RUNNING, 0.0)
        self.assertEqual(set(job_json(job)) - set(JOB_FIELDS), set())
        view = WorkerView(Worker("id", "box", "127.0.0.1:1"), Presence(), 0, None)
        self.assertEqual(set(worker_json(view)) - set(WORKER_FIELDS), set())


class ShowTests(Case):
    def text(self, **changes: Any) -> str:
        now = moment("2026-06-01T00:02:01Z")
        assert now is not None
        return describe({**JOB, **changes}, now)

    def test_rows(self) -> None:
        """Every row has a name, and only known facts have rows."""
        lines = self.text().splitlines()
        self.assertEqual(
            [line[:12].rstrip() for line in lines],
            ["job", "state", "command", "worker", "created", "started", "running for"],
        )
        self.assertIn(JOB["id"], lines[0])
        self.assertIn("make -C '/srv/a b'", lines[2])
        self.assertRegex(lines[5], r"\(2m ago\), after 1\.0s$")
        self.assertIn("2m", lines[6])

    def test_end(self) -> None:
        """The end and its reason, the run time, and the resources used."""
        text = self.text(
            state="failed",
            reason="exit status 2",
            exit_code=2,
            finished_at="2026-06-01T00:01:01Z",
            usage={"max_rss": 120_000_000, "cpu_seconds": 3.21},
            stdout_bytes=1234567,
            stderr_bytes=0,
            output_error="disk full",
        )
        for row in (
            "state       failed: exit status 2",
            "exit code   2",
            "used        120 MB of memory at most, 3.2s of processor time",
            "output      stdout 1.23 MB, stderr 0 B",
            "            not all of it was kept: disk full",
        ):
            self.assertIn(f"{row}\n", text)
        self.assertIn("ran 1m\n", text)
        self.assertNotIn("running for", text)
        self.assertIn("signal      SIGKILL\n", self.text(signal="SIGKILL"))

    def test_waiting(self) -> None:
        """The reason why a job waits, and its place."""
        waits = {"why": "draining", "detail": "box is drained", "place": 3}
        text = self.text(state="queued", started_at=None, worker_name=None, worker_id=None, waiting_for=waits)
        self.assertIn("waiting for box is drained (place 3 in the queue)\n", text)
        self.assertNotIn("worker ", text)

    def test_rest(self) -> None:
        """Processes left running, requests for the job, and its other attempts."""
        text = self.text(
            leftover=[12, 13],
            background_ended=2,
            orphan=True,
            stop_requested_at="2026-06-01T00:01:00Z",
            remove_requested_at="2026-06-01T00:01:00Z",
            retry={"attempts": 2, "delay": 60},
            retry_of="a",
            retried_by="b",
            group_id="g",
            created_by="ann",
            cwd="/srv",
            labels={"b": "2", "a": "1"},
            env={"SECRET": "s3cret", "A": "1"},
            timeout=90,
        )
        for part in (
            "processes that could not be ended: 12, 13",
            "2 processes were ended",
            "its worker still runs it",
            "stop        requested",
            "removal     requested",
            "up to 2 more attempts, 1m apart",
            "retry of    a\n",
            "retried by  b\n",
            "group       g\n",
            "by ann\n",
            "folder      /srv\n",
            "labels      a=1,b=2\n",
            "variables   A, SECRET\n",
            "timeout     1m 30s\n",
        ):
            self.assertIn(part, text)
        self.assertNotIn("s3cret", text)
        for attempts, words in ((0, "no more attempts\n"), (1, "up to 1 more attempt\n")):
            self.assertIn(f"retry       {words}", self.text(retry={"attempts": attempts, "delay": 0}))
        self.assertIn("1 process was ended", self.text(background_ended=1))

    def test_harmless(self) -> None:
        """No text of a job breaks a row or controls the terminal."""
        text = self.text(reason="a\nb\x1b[2J", cwd="/x\ny")
        self.assertEqual(len(text.splitlines()), 8)
        self.assertNotIn("\x1b", text)

    def test_several(self) -> None:
        """Several jobs are separated by an empty line; programs get one line each."""
        self.client.listed = [FAILED, {**JOB}]
        self.assertEqual(self.out("show", JOB["id"], OTHER).count("\n\njob "), 1)
        self.assertEqual(self.out("show", "--format", "{state}", JOB["id"], OTHER), "running\nfailed\n")
        self.assertEqual(json.loads(self.out("show", "--json", OTHER)), FAILED)

    def test_coloured(self) -> None:
        """The state is coloured on a terminal."""
        self.client.listed = [FAILED]
        self.assertIn("\x1b[31mfailed\x1b[0m", self.out("show", OTHER, terminal=True))
