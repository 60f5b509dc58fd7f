"""A worker whose state folder is on a file system that is mounted noexec."""

import os

from twisted.trial.unittest import TestCase

from scheduler.model import JobState
from tests.integration.running import Running
from tests.integration.scenario import play
from tests.namespaces import in_namespaces


async def scripts_and_commands(worker: Running) -> None:
    status = await worker.run(script=b"#!/bin/sh\necho hi\n")
    folder = os.path.dirname(worker.jobs_dir)
    wanted = f"script: can't be run here: the worker's state folder, {folder}, is on a file system mounted noexec"
    assert (status.state, status.reason) == (JobState.FAILED, wanted), status
    status = await worker.run("sh", "-c", "exit 3")
    assert status.exit_code == 3, status


class NoexecTests(TestCase):
    """Nothing in the spool can be executed."""

    async def test_script(self) -> None:
        """A script is refused with that reason, a command runs, and the worker warns at its start."""
        state = os.path.abspath(self.mktemp())
        os.mkdir(state)
        prefix = in_namespaces(f"mount -t tmpfs -o noexec none {state}")
        log = await play(self, "scripts_and_commands", state, prefix)
        self.assertIn(f"{state}/jobs is on a file system mounted noexec: no job can run a script", log)
