"""The resource usage of a job's processes, measured by its shim."""

import signal
import sys

from scheduler.model import JobState, Usage
from scheduler.worker.shim import proctree
from tests.integration.running import UNTIL_TOLD, RunningCase, edit

#: Seconds of CPU time that each burning process takes, and bytes that the large one holds.
BURNT = 0.5
LARGE = 64 * 1024 * 1024

BURN = f"""
import time
def burn():
    while time.process_time() < {BURNT}:
        sum(range(1000))
"""


class UsageTests(RunningCase):
    async def test_waited_for(self) -> None:
        """The CPU time of a process that its parent waited for counts, once."""
        status = await self.worker.run("sh", "-c", '"$0" -c "$1"; exit 0', sys.executable, f"{BURN}burn()")
        assert status.usage is not None
        self.assertTrue(BURNT <= status.usage.cpu_seconds < 2 * BURNT, status.usage)

    async def test_orphan(self) -> None:
        """A process whose parent has ended counts, too; ``max_rss`` is that of the largest process."""
        source = f"""{BURN}
import os
ends, held = os.pipe()
if not os.fork():
    if not os.fork():
        os.close(held)
        os.setsid()
        burn()
        os.read(ends, 1)
    os._exit(0)
os.wait()
large = bytearray({LARGE})
burn()
"""
        status = await self.worker.run(sys.executable, "-c", source, linger=30.0)
        self.assertEqual((status.state, status.tree), (JobState.SUCCEEDED, "exited"))
        assert status.usage is not None
        self.assertTrue(2 * BURNT <= status.usage.cpu_seconds < 3 * BURNT, status.usage)
        self.assertTrue(LARGE <= status.usage.max_rss < 3 * LARGE, status.usage)

    async def test_after_a_restart(self) -> None:
        """The exit record has it, so it is known to the next worker process."""
        before = await self.worker.run("true")
        await self.restart()
        self.assertEqual(self.worker.runner.query(before.job_id), before)
        assert before.usage is not None
        self.assertGreater(before.usage.max_rss, 0)

    async def test_not_known(self) -> None:
        """The usage is not known for a job that never ran, one that lost its shim, and a record without it."""
        refused = await self.worker.run("/no/such/command")
        self.assertEqual((refused.state, refused.usage), (JobState.FAILED, None))
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        proctree.send(self.worker.shim(job), signal.SIGKILL)
        lost = await self.worker.ended(job)
        self.assertEqual((lost.state, lost.usage), (JobState.LOST, None))
        earlier = await self.worker.run("true")
        self.assertIsInstance(earlier.usage, Usage)
        await self.worker.drop()
        edit(self.worker.spool(earlier.job_id).exit_path, usage=None)
        self.worker = await self.next_life()
        self.assertIsNone(self.worker.runner.query(earlier.job_id).usage)
