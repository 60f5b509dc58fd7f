"""Freed memory is kept for a while."""

import platform
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

_FREE_AND_TAKE_AGAIN = """
import resource, sys
from scheduler.daemon import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    pieces = [bytes(1 << 20) for _ in range(8)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


class MemoryTests(SynchronousTestCase):
    def page_faults(self, how: str) -> int:
        """The pages that the system provides to a process that frees 8 MiB and takes as much again, fifty times."""
        command, env = [sys.executable, "-c", _FREE_AND_TAKE_AGAIN, how], {"PYTHONPATH": ":".join(sys.path)}
        return int(subprocess.run(command, capture_output=True, check=True, text=True, env=env).stdout)

    def test_kept(self) -> None:
        """The same memory is taken again after it was freed."""
        if platform.libc_ver()[0] != "glibc":
            self.skipTest("only glibc can be told")
        self.assertLess(self.page_faults("kept") * 5, self.page_faults("given back"))
