"""Spools of other versions than this one."""

import json
import os
import shutil
import subprocess
import sys

from scheduler.errors import Conflict, NotFound
from scheduler.model import JobSpec, JobState, Stream
from scheduler.request_keys import RequestKey
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import boot_id
from tests.integration.running import RunningCase, edit


class FormatTests(RunningCase):
    FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures")

    async def found(self, fixture: str) -> None:
        await self.worker.drop()
        shutil.copytree(os.path.join(self.FIXTURES, fixture), self.worker.jobs_dir, dirs_exist_ok=True)

    async def test_first_format(self) -> None:
        """Jobs of the first format are taken back, with all that is known of them."""
        await self.check_taken_back("spool-1", created_at=1795528640.975634, output_limit=None)

    async def test_second_format(self) -> None:
        """Spools of the previous version, without linger, stop signal and umask, are read, too."""
        await self.check_taken_back("spool-2", created_at=1795866460.8035526, output_limit=1000)

    async def check_taken_back(self, fixture: str, created_at: float, output_limit: int | None) -> None:
        await self.found(fixture)
        self.worker = await self.next_life()
        runner = self.worker.runner
        finished, lost = runner.query("finished"), runner.query("running-at-crash")
        self.assertEqual((finished.state, finished.exit_code, finished.reason), (JobState.FAILED, 3, "exit status 3"))
        self.assertEqual((finished.leftover, finished.background_ended), ((), 0))
        self.assertEqual((lost.state, lost.reason, lost.stdout_bytes), (JobState.LOST, "rebooted", 17))
        self.assertEqual([report.status for report in self.worker.jobs.unacknowledged()], [finished, lost])
        self.assertEqual(self.worker.output("finished"), b"from stdin\ndone\n")
        self.assertEqual(self.worker.output("running-at-crash"), b"before the crash\n")
        self.assertEqual(self.worker.output("running-at-crash", Stream.STDERR), b"oops\n")
        first, second = await self.worker.jobs.describe(["finished", "running-at-crash"])
        command = ("-c", "echo before the crash; echo oops >&2; sleep 600")
        self.assertEqual(
            second.spec,
            JobSpec("sh", command, env={"LEVEL": "7"}, labels={"team": "night"}, timeout=3600.0, stop_grace=0.5),
        )
        self.assertTrue(first.spec.merge_stderr)
        self.assertEqual((first.created_at, first.spec.output_limit), (created_at, output_limit))
        self.assertEqual(await runner.start("finished", JobSpec(command="true"), None), finished)

    async def test_key_without_principal(self) -> None:
        """The key of a request that the previous version kept has no principal."""
        await self.worker.runner.start("keyed", JobSpec(command="true"), None, RequestKey("k", "f" * 64, "token:ci"))
        await self.worker.ended("keyed")
        await self.worker.drop()
        path = self.worker.spool("keyed").job_path
        with open(path) as file:
            record = json.load(file)
        del record["request_principal"]
        with open(path, "w") as file:
            json.dump(record, file)
        self.worker = await self.next_life()
        (report,) = await self.worker.jobs.describe(["keyed"])
        self.assertEqual(report.key, RequestKey("k", "f" * 64))

    async def test_still_running(self) -> None:
        """A shim of the version before that still has its job is followed to the end that it writes."""
        await self.found("spool-1")
        spool = self.worker.spool("running-at-crash")
        edit(spool.job_path, boot_id=boot_id())
        with open(os.path.join(self.FIXTURES, "spool-1", "finished", "exit.json"), "rb") as file:
            record = file.read()
        with spool.locked() as lock:
            holder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock])
            self.addCleanup(holder.stdout.close)
            self.addCleanup(holder.wait)
            self.addCleanup(holder.kill)
            spool.begin(lock, proctree.process(holder.pid).identity)
        self.worker = await self.next_life()
        self.assertEqual(self.worker.jobs.running(), ("running-at-crash",))
        with open(spool.exit_path, "wb") as file:
            file.write(record)
        holder.stdin.close()
        self.assertEqual((await self.worker.ended("running-at-crash")).exit_code, 3)

    async def test_stop_of_an_earlier_shim(self) -> None:
        """A shim of the version before takes TERM for the stop, and its spool has no file prepared for the mark."""
        await self.found("spool-2")
        spool = self.worker.spool("running-at-crash")
        edit(spool.job_path, boot_id=boot_id())
        with open(os.path.join(self.FIXTURES, "spool-2", "finished", "exit.json"), encoding="utf-8") as file:
            record = {**json.load(file), "state": "stopped"}
        earlier = f"""
import os, signal
def end(*_):
    with open({spool.exit_path!r}, "w") as file:
        file.write({json.dumps(record)!r})
    os._exit(0)
signal.signal(signal.SIGTERM, end)
os.write(1, b"x")
while True:
    signal.pause()
"""
        with spool.locked() as lock:
            shim = subprocess.Popen([sys.executable, "-c", earlier], stdout=subprocess.PIPE, pass_fds=[lock])
            self.addCleanup(shim.stdout.close)
            self.addCleanup(shim.wait)
            self.addCleanup(shim.kill)
            shim.stdout.read(1)
            spool.begin(lock, proctree.process(shim.pid).identity)
        self.worker = await self.next_life()
        self.assertEqual(self.worker.jobs.running(), ("running-at-crash",))
        status = await self.worker.runner.stop("running-at-crash", wait=True)
        self.assertEqual((status.state, status.reason), (JobState.STOPPED, "exit status 3"))
        self.assertTrue(spool.stop_asked())

    async def test_later_format(self) -> None:
        """A spool of a format that is not known is left as it is, and its id is used; others are not disturbed."""
        await self.found("spool-1")
        for record in ("job_path", "exit_path"):
            edit(getattr(self.worker.spool("finished"), record), format=99)
        before = folder(self.worker.spool("finished").folder)
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertRaises(NotFound, self.worker.runner.query, "finished")
        await self.assertFailure(self.worker.runner.start("finished", JobSpec(command="true"), None), Conflict)
        await self.assertFailure(self.worker.runner.seal("finished"), NotFound)
        self.flushLoggedErrors(ValueError)
        self.assertEqual(folder(self.worker.spool("finished").folder), before)
        self.assertEqual([report.status.job_id for report in self.worker.jobs.unacknowledged()], ["running-at-crash"])
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)


def folder(path: str) -> dict[str, bytes]:
    """The files in a folder."""
    content = {}
    for entry in os.scandir(path):
        if entry.is_file():
            with open(entry, "rb") as file:
                content[entry.name] = file.read()
    return content
