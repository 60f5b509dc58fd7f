"""A worker says with the end of a job's output whether that is all the job wrote; with real jobs and files."""

from __future__ import annotations

import os
import signal

from twisted.logger import LogLevel, capturedLogs, formatEvent

from scheduler.errors import NotFound, OutputPruned
from scheduler.messages import Chunk
from scheduler.model import JobState, Stream
from tests.integration.running import UNTIL_TOLD, RunningCase, edit, gone


class CutOutputTests(RunningCase):
    def end_of(self, job_id: str, stream: Stream = Stream.STDOUT) -> Chunk:
        """The chunk that ends a stream; those before it say nothing of a cut."""
        offset = 0
        while True:
            chunk = self.worker.runner.read_output_thd(job_id, stream, offset, 1 << 20)
            if chunk.end:
                return chunk
            self.assertEqual(chunk.cut, "")
            self.assertTrue(chunk.data)
            offset = chunk.next_offset

    async def test_whole(self) -> None:
        """Output that was kept whole is not cut, however the job ended."""
        for command in ("echo out; echo err >&2", "echo out; exit 3", "kill -9 $$", "exit 0"):
            job = (await self.worker.run("sh", "-c", command)).job_id
            for stream in Stream:
                self.assertEqual(self.end_of(job, stream).cut, "", command)
        job = await self.worker.start("sleep", "600")
        await self.worker.runner.stop(job, wait=True)
        self.assertEqual(self.end_of(job).cut, "")

    async def test_never_started(self) -> None:
        """A job that could not start wrote nothing, and that is all of it."""
        job = (await self.worker.run("/no/such/command")).job_id
        self.assertEqual(self.end_of(job), Chunk(b"", 0, True))

    async def test_output_limit(self) -> None:
        """A job that reached its output limit may lack output in either stream."""
        job = (await self.worker.run("sh", "-c", "exec yes", output_limit=3_000_001)).job_id
        for stream in Stream:
            self.assertEqual(self.end_of(job, stream).cut, "output limit of 3000001 bytes reached")

    async def test_log(self) -> None:
        """The log tells which job's output was cut, and why; of one that ended without its worker, too."""
        with capturedLogs() as told:
            job = (await self.worker.run("sh", "-c", "exec yes", output_limit=1000)).job_id
            self.worker = await self.next_life()
        warnings = [formatEvent(event) for event in told if event["log_level"] is LogLevel.warn]
        self.assertEqual(warnings, [f"the output of job {job} was cut: output limit of 1000 bytes reached"] * 2)

    async def test_lost(self) -> None:
        """Data in the pipes of a job is lost with its shim, so its output is not known to be complete."""
        job = await self.worker.start("sh", "-c", f"echo up; {UNTIL_TOLD}")
        await self.worker.lines(job, 1)
        shim = self.worker.shim(job).pid
        os.kill(shim, signal.SIGKILL)
        await gone(shim)
        status = await self.worker.ended(job)
        self.assertEqual(status.state, JobState.LOST)
        end = self.end_of(job)
        self.assertEqual(end.data, b"up\n")
        self.assertEqual(end.cut, "the job is lost, and what it wrote last may be missing")
        self.assertEqual(status.output_error, end.cut)

    async def test_lost_at_its_limit(self) -> None:
        """A job that reached its output limit before its shim was killed names the limit."""
        job = await self.worker.start("sh", "-c", f"trap '' TERM PIPE; echo 123456789; {UNTIL_TOLD}", output_limit=10)
        await self.worker.lines(job, 1)
        shim = self.worker.shim(job).pid
        os.kill(shim, signal.SIGKILL)
        await gone(shim)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.output_error), (JobState.LOST, "output limit of 10 bytes reached"))

    async def test_damaged(self) -> None:
        """A file that is not as long as the job's record says is not its whole output."""
        job = (await self.worker.run("echo", "hello")).job_id
        os.truncate(self.worker.spool(job).output("stdout"), 2)
        self.assertEqual(self.end_of(job), Chunk(b"he", 0, True, 2, "stdout has 2 bytes, and the job wrote 6"))
        self.assertEqual(self.end_of(job, Stream.STDERR).cut, "")

    async def test_refused_start(self) -> None:
        """The spool of a start that is about to be refused for a shortage, after which nothing ran, has no output."""
        job = (await self.worker.run("true")).job_id
        edit(self.worker.spool(job).exit_path, shortage="no more processes")
        self.assertRaises(NotFound, self.end_of, job)

    async def test_removed_meanwhile(self) -> None:
        """The output of a job that is removed during a read is not known to be complete."""
        job = (await self.worker.run("echo", "hello")).job_id
        spool = self.worker.spool(job)
        spools, find = self.worker.spools, self.worker.spools.spool

        def removed_when_opened(job_id: str) -> object:
            found = find(job_id)
            found.read_exit = lambda: None  # as of a file that was there a moment ago
            return found

        spools.spool = removed_when_opened
        self.addCleanup(setattr, spools, "spool", find)
        self.assertRaises(OutputPruned, self.end_of, job)
        self.assertIsNotNone(spool.read_exit())
