"""What a worker finds of the jobs of the process before it, and how little it keeps itself."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import uuid

from twisted.internet.defer import DeferredList, gatherResults
from twisted.internet.threads import deferToThread

from scheduler.errors import Conflict, NotFound, OutputPruned, ShuttingDown, Unavailable
from scheduler.model import JobSpec, JobState, Stream
from scheduler.worker import proctree
from scheduler.worker.spool import boot_id
from tests.integration.running import UNTIL_TOLD, RunningCase, gone, is_gone, later, stubborn

#: Another in each process: what a lost job left is looked for on the whole machine.
JOB = str(uuid.uuid4())


def edit(path: str, **fields: object) -> None:
    """Change a record."""
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record | fields, file)


def no_descriptor(*_: object) -> None:
    raise OSError(errno.EMFILE, "no descriptor")


class NextLifeTests(RunningCase):
    """A worker ends and another begins."""

    async def test_running_and_ended(self) -> None:
        """Jobs run on without a worker; the next follows those that run and finds how the others ended."""
        runs = await self.worker.start("sh", "-c", UNTIL_TOLD)
        ends = await self.worker.start("sh", "-c", UNTIL_TOLD)
        shims = [self.worker.shim(job).pid for job in (runs, ends)]
        await self.worker.drop()
        self.worker.tell(ends)
        await gone(shims[1])
        self.assertFalse(is_gone(shims[0]))
        before = time.monotonic()
        self.worker = await self.next_life()
        self.assertLess(time.monotonic() - before, 2)
        self.assertEqual(self.worker.runner.running(), (runs,))
        self.assertEqual([report.status.exit_code for report in self.worker.runner.unacknowledged()], [3])
        self.worker.tell(runs)
        self.assertEqual((await self.worker.ended(runs)).exit_code, 3)

    async def test_killed(self) -> None:
        """A worker killed by -9 leaves its jobs running, each byte of their output kept."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.worker_process", self.state_dir],
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        await self.worker.drop()
        count = "i=0; while [ ! -e told ]; do echo $i; i=$((i+1)); done; echo $i; exit 3"
        process.stdin.write(json.dumps(["sh", "-c", count]).encode() + b"\n")
        process.stdin.flush()
        job = (await deferToThread(process.stdout.readline)).decode().strip()
        process.kill()
        await deferToThread(process.wait)
        process.stdin.close()
        self.worker = await self.next_life()
        self.assertEqual(self.worker.runner.running(), (job,))
        await self.worker.lines(job, self.worker.output(job).count(b"\n") + 1000)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
        lines = self.worker.output(job).split()
        self.assertEqual(lines, [b"%d" % number for number in range(len(lines))])

    async def test_stop_afterwards(self) -> None:
        """A job taken back can be stopped."""
        job = await self.worker.start(sys.executable, "-c", stubborn())
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        await self.worker.drop()
        self.worker = await self.next_life()
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.tree), (JobState.STOPPED, "killed"))
        self.assertTrue(all(map(is_gone, pids)), pids)

    async def test_stop_written_down(self) -> None:
        """A stop that was written down by a worker killed before it said so is carried out by the next."""
        job = await self.worker.start("sleep", "600")
        await self.worker.drop()
        self.worker.spool(job).ask_stop()
        self.worker = await self.next_life()
        self.assertEqual((await self.worker.ended(job)).state, JobState.STOPPED)

    async def test_shim_killed_meanwhile(self) -> None:
        """A job whose shim was killed while there was no worker is lost."""
        job = await self.worker.start("sleep", "600")
        shim = self.worker.shim(job).pid
        await self.worker.drop()
        os.kill(shim, 9)
        await gone(shim)
        self.worker = await self.next_life()
        status = self.worker.runner.query(job)
        self.assertEqual((status.state, status.reason, status.exit_code), (JobState.LOST, "no record", None))
        self.assertEqual([report.status for report in self.worker.runner.unacknowledged()], [status])

    async def test_rebooted(self) -> None:
        """A job that ran when the machine went down is lost, and nothing is signalled for it."""
        job = await self.worker.start("sleep", "600")
        shim = self.worker.shim(job).pid
        main = self.worker.spool(job).read_start()["pid"]
        await self.worker.drop()
        os.kill(shim, 9)
        await gone(shim, main)
        edit(self.worker.spool(job).job, boot_id="another")
        bystander = subprocess.Popen(["sleep", "600"], env={"SCHEDULER_JOB_ID": job})
        self.addCleanup(bystander.wait)
        self.addCleanup(bystander.kill)
        self.worker = await self.next_life()
        status = self.worker.runner.query(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "rebooted"))
        self.assertIsNone(bystander.poll())

    async def test_not_begun(self) -> None:
        """A job that no shim took on before the worker ended failed, and a shim that comes late does nothing."""
        real, self.worker.launcher.launch_thd = self.worker.launcher.launch_thd, lambda *_: True
        failed = await self.worker.start("sh", "-c", "echo ran")
        self.assertEqual(self.worker.runner.query(failed).state, JobState.FAILED)
        self.assertIn("could not be started", self.worker.runner.query(failed).reason)
        await self.worker.pool.run(real, self.worker.spool(failed).folder, 10.0)
        self.assertEqual(self.worker.output(failed), b"")
        os.unlink(self.worker.spool(failed).exit)  # as if the worker had been killed before it decided
        await self.worker.drop()
        self.worker = await self.next_life()
        status = self.worker.runner.query(failed)
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "not started: the worker ended first"))

    async def test_once(self) -> None:
        """A second shim for a job that was begun does nothing, while the first is there and when it was killed."""
        job = await self.worker.start("sh", "-c", f"echo ran; {UNTIL_TOLD}")
        await self.worker.lines(job, 1)
        folder = self.worker.spool(job).folder
        await self.worker.pool.run(self.worker.launcher.launch_thd, folder, 10.0)
        await self.worker.drop()
        shim = self.worker.shim(job).pid
        os.kill(shim, 9)
        await gone(shim)
        another = await self.next_life()
        os.unlink(another.spool(job).exit)
        await another.pool.run(another.launcher.launch_thd, folder, 10.0)
        self.assertEqual(another.shim(job).pid, shim)

    async def test_same_id_in_the_next_life(self) -> None:
        """An id that was started by the worker before is answered, not started again."""
        job = await self.worker.start("sh", "-c", "echo ran", job_id=JOB)
        status = await self.worker.ended(job)
        await self.worker.drop()
        self.worker = await self.next_life()
        self.assertEqual(await self.worker.runner.start(JOB, JobSpec(command="false"), None), status)
        self.assertEqual(self.worker.output(job), b"ran\n")

    async def test_acknowledged(self) -> None:
        """What was acknowledged is not reported by the next worker, but known."""
        first = await self.worker.start("true")
        second = await self.worker.start("true")
        for job in (first, second):
            await self.worker.ended(job)
        self.worker.runner.acknowledge([first])
        await self.worker.drop()
        self.worker = await self.next_life()
        self.assertEqual([report.status.job_id for report in self.worker.runner.unacknowledged()], [second])
        self.assertEqual(self.worker.runner.query(first).state, JobState.SUCCEEDED)
        (report,) = await self.worker.runner.describe([first])
        self.assertEqual(report.spec.command, "true")

    async def test_leftovers(self) -> None:
        """Unfinished folders are removed, a broken one is left alone, and neither keeps the worker from its jobs."""
        job = await self.worker.start("true")
        await self.worker.ended(job)
        await self.worker.drop()
        for name in (".new-a", ".gone-b", "broken"):
            os.makedirs(os.path.join(self.worker.jobs_dir, name, "work"))
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {job, "broken"})
        self.assertEqual(self.worker.runner.query(job).state, JobState.SUCCEEDED)
        os.rmdir(os.path.join(self.worker.jobs_dir, "broken", "work"))
        os.rmdir(os.path.join(self.worker.jobs_dir, "broken"))

    async def test_after_the_end(self) -> None:
        """A runner that was shut down starts nothing, and whoever waited for an end is told."""
        job = await self.worker.start("sleep", "600")
        waiting = self.worker.runner.stop(job, wait=True)
        self.worker.runner.shut_down()
        await self.assertFailure(waiting, ShuttingDown)
        await self.assertFailure(self.worker.runner.start("", JobSpec(command="true"), None), ShuttingDown)


class FormatTests(RunningCase):
    """Spools of other versions."""

    FIXTURES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures")

    async def found(self, fixture: str) -> None:
        await self.worker.drop()
        shutil.copytree(os.path.join(self.FIXTURES, fixture), self.worker.jobs_dir, dirs_exist_ok=True)

    async def test_first_format(self) -> None:
        """Jobs of the first format are taken back, with all that is known of them."""
        await self.found("spool-1")
        self.worker = await self.next_life()
        runner = self.worker.runner
        finished, lost = runner.query("finished"), runner.query("running-at-crash")
        self.assertEqual((finished.state, finished.exit_code, finished.reason), (JobState.FAILED, 3, "exit status 3"))
        self.assertEqual((lost.state, lost.reason, lost.stdout_bytes), (JobState.LOST, "rebooted", 17))
        self.assertEqual([report.status for report in runner.unacknowledged()], [finished, lost])
        self.assertEqual(self.worker.output("finished"), b"from stdin\ndone\n")
        self.assertEqual(self.worker.output("running-at-crash"), b"before the crash\n")
        self.assertEqual(self.worker.output("running-at-crash", Stream.STDERR), b"oops\n")
        first, second = await runner.describe(["finished", "running-at-crash"])
        command = ("-c", "echo before the crash; echo oops >&2; sleep 600")
        self.assertEqual(
            second.spec,
            JobSpec("sh", command, env={"LEVEL": "7"}, labels={"team": "night"}, timeout=3600.0, stop_grace=0.5),
        )
        self.assertTrue(first.spec.merge_stderr)
        self.assertEqual(first.created_at, 1795528640.975634)
        self.assertEqual(await runner.start("finished", JobSpec(command="true"), None), finished)

    async def test_still_running(self) -> None:
        """A shim of the version before that still has its job is followed to the end that it writes."""
        await self.found("spool-1")
        spool = self.worker.spool("running-at-crash")
        edit(spool.job, boot_id=boot_id())
        with open(os.path.join(self.FIXTURES, "spool-1", "finished", "exit.json"), "rb") as file:
            record = file.read()
        with spool.locked() as lock:
            holder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock])
            self.addCleanup(holder.stdout.close)
            self.addCleanup(holder.wait)
            self.addCleanup(holder.kill)
            spool.begin(lock, proctree.process(holder.pid).identity)
        self.worker = await self.next_life()
        self.assertEqual(self.worker.runner.running(), ("running-at-crash",))
        with open(spool.exit, "wb") as file:
            file.write(record)
        holder.stdin.close()
        self.assertEqual((await self.worker.ended("running-at-crash")).exit_code, 3)

    async def test_later_format(self) -> None:
        """A spool of a format that is not known is left as it is, and its id is used; others are not disturbed."""
        await self.found("spool-1")
        for record in ("job", "exit"):
            edit(getattr(self.worker.spool("finished"), record), format=99)
        before = folder(self.worker.spool("finished").folder)
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        with self.assertRaises(NotFound):
            self.worker.runner.query("finished")
        await self.assertFailure(self.worker.runner.start("finished", JobSpec(command="true"), None), Conflict)
        await self.assertFailure(self.worker.runner.seal("finished"), NotFound)
        self.flushLoggedErrors(ValueError)
        self.assertEqual(folder(self.worker.spool("finished").folder), before)
        self.assertEqual([report.status.job_id for report in self.worker.runner.unacknowledged()], ["running-at-crash"])
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)


def folder(path: str) -> dict[str, bytes]:
    """The files in a folder."""
    content = {}
    for entry in os.scandir(path):
        if entry.is_file():
            with open(entry, "rb") as file:
                content[entry.name] = file.read()
    return content


class KeepingTests(RunningCase):
    """What stays, and for how long."""

    async def removed(self, job_id: str) -> None:
        """Once the worker has nothing more of that job."""
        while True:
            try:
                self.worker.runner.query(job_id)
            except NotFound:
                return
            await later(0.01)

    async def test_sweep(self) -> None:
        """An ended job is removed when it was acknowledged and kept long enough, and only then."""
        await self.worker.drop()
        clock = [1000.0]
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: clock[0])
        jobs = [await self.worker.start("true") for _ in range(3)]
        for job in jobs:
            await self.worker.ended(job)
        runs = await self.worker.start("sh", "-c", UNTIL_TOLD)
        old, unacknowledged, young = jobs
        self.worker.runner.acknowledge([old, young])
        await self.worker.drop()
        edit(self.worker.spool(old).exit, finished_at=1000.0)
        edit(self.worker.spool(unacknowledged).exit, finished_at=1000.0)
        edit(self.worker.spool(young).exit, finished_at=1000.5)
        clock[0] = 1100.0
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: clock[0])
        await self.removed(old)
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {unacknowledged, young, runs})
        with self.assertRaises(NotFound):
            self.worker.runner.query(old)
        with self.assertRaises(OutputPruned):
            self.worker.runner.read_output_thd(old, Stream.STDOUT, 0, 1)

    async def test_used_once(self) -> None:
        """An id that was used or sealed is not started again, in this life or the next, though its spool is gone."""
        await self.worker.drop()
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: 1000.0)
        used, sealed = (await self.worker.run("true")).job_id, f"sealed-{JOB}"
        await self.assertFailure(self.worker.runner.seal(sealed), NotFound)
        self.worker.runner.acknowledge([used])
        await self.worker.drop()
        edit(self.worker.spool(used).exit, finished_at=1000.0)
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: 2000.0)
        await self.removed(used)
        await self.worker.drop()
        for _ in range(2):
            self.worker = await self.next_life()
            for job_id in (used, sealed):
                again = self.worker.runner.start(job_id, JobSpec(command="true"), None)
                await self.assertFailure(again, Conflict)
            await self.worker.drop()
            self.assertEqual(os.listdir(self.worker.jobs_dir), [])
            with self.assertRaises(OutputPruned):
                self.worker.runner.read_output_thd(used, Stream.STDOUT, 0, 1)
            with self.assertRaises(NotFound):
                self.worker.runner.read_output_thd(sealed, Stream.STDOUT, 0, 1)

    async def test_seal_of_a_failed_start(self) -> None:
        """Of a start that left a spool and no job, the seal is an end that stays."""
        real, self.worker.spools._launch = self.worker.spools._launch, no_descriptor
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Unavailable)
        self.worker.spools._launch = real
        self.assertEqual(os.listdir(self.worker.jobs_dir), [JOB])
        with self.assertRaises(NotFound):
            self.worker.runner.query(JOB)
        status = await self.worker.runner.seal(JOB)
        self.assertEqual((status.state, status.started_at), (JobState.FAILED, None))
        self.assertEqual(await self.worker.runner.start(JOB, JobSpec(command="true"), None), status)
        self.assertEqual([report.status for report in self.worker.runner.unacknowledged()], [status])

    async def test_clock_step(self) -> None:
        """A step of the clock, however far, makes nothing older."""
        await self.worker.drop()
        clock = [time.time()]
        self.worker = await self.next_life(keep_spool=3600.0, wall_time=lambda: clock[0])
        job = (await self.worker.run("true")).job_id
        self.worker.runner.acknowledge([job])
        for step in (1e9, -2e9):
            clock[0] += step
            second = (await self.worker.run("true")).job_id
            self.worker.runner.acknowledge([second])
            await self.swept()
            self.assertEqual(self.worker.runner.query(job).state, JobState.SUCCEEDED)
            self.assertEqual(self.worker.runner.query(second).state, JobState.SUCCEEDED)

    async def swept(self) -> None:
        """Once one more sweep is over."""
        await self.worker.pool.run(lambda: None)
        await self.worker.runner._retention.make_room()

    async def write(self, size: int) -> str:
        """The id of a job that has written so much and ended."""
        status = await self.worker.run("head", "-c", str(size), "/dev/zero")
        self.assertEqual((status.state, status.stdout_bytes), (JobState.SUCCEEDED, size))
        return status.job_id

    async def test_most(self) -> None:
        """Beyond ``spool_max`` the oldest that were acknowledged go; the next life counts what it finds."""
        await self.worker.drop()
        self.worker = await self.next_life(spool_max="2.5MB")
        first, second = await self.write(1_000_000), await self.write(1_000_000)
        self.worker.runner.acknowledge([first, second])
        await self.swept()
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {first, second})
        await self.worker.drop()
        self.worker = await self.next_life(spool_max="2.5MB")
        third = await self.write(1_000_000)
        await self.removed(first)
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {second, third})
        self.assertEqual(len(self.worker.output(second)), 1_000_000)
        await self.assertFailure(self.worker.runner.start(first, JobSpec(command="true"), None), Conflict)

    async def test_most_of_what_is_not_acknowledged(self) -> None:
        """What was not acknowledged loses its output if it must, and is reported all the same, in the next life too."""
        await self.worker.drop()
        self.worker = await self.next_life(spool_max="2.5MB")
        jobs = [await self.write(1_000_000) for _ in range(3)]
        await self.swept()
        statuses = [self.worker.runner.query(job) for job in jobs]
        for _ in range(2):
            self.assertEqual([report.status for report in self.worker.runner.unacknowledged()], statuses)
            self.assertEqual(len(await self.worker.runner.describe(jobs)), 3)
            for offset in (0, 1_000_000):
                with self.assertRaises(OutputPruned):
                    self.worker.runner.read_output_thd(jobs[0], Stream.STDOUT, offset, 1)
            self.assertEqual(len(self.worker.output(jobs[1])), 1_000_000)
            again = await self.worker.runner.start(jobs[0], JobSpec(command="true"), None)
            self.assertEqual(again, statuses[0])
            await self.worker.drop()
            self.worker = await self.next_life(spool_max="2.5MB")
            await self.swept()
        self.worker.runner.acknowledge(jobs)
        await self.swept()

    async def test_descriptors(self) -> None:
        """Fifty jobs later the worker has the descriptors it had before."""
        await self.worker.run("true")
        before = sorted(os.listdir("/proc/self/fd"))
        jobs = await gatherResults([self.worker.runner.start("", JobSpec(command="true"), None) for _ in range(50)])
        for job in jobs:
            await self.worker.ended(job.job_id)
        await self.worker.run("false", cwd="/no/such")
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)

    async def test_many_at_once(self) -> None:
        """As many as are started at once all run, each once, with the output that is its own."""
        jobs = await gatherResults(
            [self.worker.runner.start("", JobSpec(command="sh", args=("-c", f"echo {n}")), None) for n in range(60)]
        )
        for number, job in enumerate(jobs):
            self.assertEqual((await self.worker.ended(job.job_id)).state, JobState.SUCCEEDED)
            self.assertEqual(self.worker.output(job.job_id), b"%d\n" % number)

    async def test_stop_while_starting(self) -> None:
        """A job stopped before its start was answered is stopped."""
        started = self.worker.runner.start(JOB, JobSpec(command="sleep", args=("600",)), None)
        status = await self.worker.runner.stop(JOB, wait=True)
        self.assertEqual(status.state, JobState.STOPPED)
        self.assertEqual((await started).state, JobState.RUNNING)

    async def test_no_descriptor_left(self) -> None:
        """Without descriptors for all some starts are refused, and work later; no job that was begun is forgotten."""
        await self.worker.run("true")
        before = sorted(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 14, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        spec = JobSpec(command="sleep", args=("1",))
        answers = await DeferredList(
            [self.worker.runner.start(f"{JOB}-{n}", spec, None) for n in range(40)], consumeErrors=True
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        refused = {number for number, (good, _) in enumerate(answers) if not good}
        for number in refused:
            answers[number][1].trap(Unavailable)
            spool = self.worker.spool(f"{JOB}-{number}")
            self.assertTrue(not os.path.exists(spool.folder) or spool.begun_by() is None)
            await self.worker.runner.start(f"{JOB}-{number}", spec, None)
        for number in range(40):
            self.assertEqual((await self.worker.ended(f"{JOB}-{number}")).state, JobState.SUCCEEDED)
        self.assertTrue(refused)
        self.assertLess(len(refused), 40)
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)
        self.flushLoggedErrors(OSError)
