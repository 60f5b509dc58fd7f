"""The units of systemd in ``etc/``: how far the scheduler's shuts it in, as systemd itself judges."""

import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

UNITS = Path(__file__).resolve().parents[2] / "etc/systemd"

#: The highest score that the scheduler's unit may have; 10 is no protection at all.
SCORE_MAX = 3.2


def analyze(*arguments: str) -> str:
    """The output of ``systemd-analyze``. Raises ``SkipTest`` where it is missing, or has no ``--offline``."""
    program = shutil.which("systemd-analyze")
    if program is None:
        raise SkipTest("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        raise SkipTest("this systemd-analyze can't judge a file: it needs systemd 250")
    return done.stdout + done.stderr


class UnitTests(SynchronousTestCase):
    """Both units."""

    def test_score(self) -> None:
        """The scheduler's exposure is low, and its unit has no setting that systemd does not know."""
        said = analyze("security", "--offline=true", "--no-pager", str(UNITS / "scheduler.service"))
        found = re.search(r"Overall exposure level for scheduler\.service: ([0-9.]+)", said)
        assert found is not None, said
        self.assertLessEqual(float(found[1]), SCORE_MAX, said)
        self.assertNotIn("Unknown key", said)
        self.assertNotIn("Failed to parse", said)

    def test_settings_that_break_it(self) -> None:
        """Settings that would break TLS, or hide the owners of local connections, are left out."""
        lines = (UNITS / "scheduler.service").read_text(encoding="utf-8").splitlines()
        for setting in ("MemoryDenyWriteExecute", "PrivateUsers", "PrivateNetwork"):
            self.assertEqual([line for line in lines if line.startswith(f"{setting}=")], [])

    def test_worker(self) -> None:
        """The worker's unit says that it runs other people's commands, and that restrictions hold for its jobs."""
        text = (UNITS / "scheduler-worker.service").read_text(encoding="utf-8")
        self.assertIn("This unit runs other people's commands", text)
        self.assertIn("would also hold for every job", text)
