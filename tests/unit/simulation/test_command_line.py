"""``python -m tests.simulation``: the exit status and the printed text."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import __main__ as command
from tests.simulation import known as known_runs
from tests.simulation.__main__ import SCOPE, main
from tests.simulation.rounds import Rounds
from tests.simulation.search import Scope
from tests.unit.simulation.plans import CALM, KNOWN_DRAIN, make

NAMES = ("calm", "drain", "end", "both")


class CommandLineTests(SynchronousTestCase):
    """The seeds are of toy profiles."""

    def run_main(self, arguments: str, *known: object) -> tuple[int, str]:
        """The exit status, and all output."""
        output = io.StringIO()
        scope = Scope(known, NAMES, make)  # type: ignore[arg-type]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                status = main(arguments.split(), scope)
            except SystemExit as ended:
                status = int(ended.code or 0)
        return status, output.getvalue()

    def test_nothing(self) -> None:
        """Nothing is broken: 0, and a table of the events."""
        status, output = self.run_main("--profile calm --seeds 3-5")
        self.assertEqual(status, 0)
        self.assertRegex(output, r"\| calm \| 3 \| 3 \| \d+ \| 0 \| 0 \| 0 \|")
        self.assertIn("seeds 3 to 5 of each profile", output)

    def test_new(self) -> None:
        """A new violation: 1, with the command that repeats it."""
        status, output = self.run_main("--profile calm --profile drain --seeds 1")
        self.assertEqual(status, 1)
        self.assertIn("--profile drain --seed 1", output)
        self.assertRegex(output, r"\| drain \| 1 \| 1 \| \d+ \| 1 \| 0 \| 1 \|")

    def test_known(self) -> None:
        """A known violation is counted, and the exit status stays 0."""
        status, output = self.run_main("--profile drain --seeds 1-2", KNOWN_DRAIN)
        self.assertEqual(status, 0)
        self.assertRegex(output, r"\| drain \| 2 \| 2 \| \d+ \| 2 \| 2 \| 0 \|")
        self.assertIn("Known violations: drain lost 2.", output)

    def test_fixed(self) -> None:
        """A known violation that no longer occurs: 1, until it is off the list."""
        self.patch(known_runs, "REPLAYS", 2)
        status, output = self.run_main("--profile calm --seeds 1", evolve(KNOWN_DRAIN, plan=CALM))
        self.assertEqual(status, 1)
        self.assertIn("'drain lost' no longer occurs: take it off the list", output)

    def test_one(self) -> None:
        """A single seed, or a part of its plan, has the same exit status."""
        self.assertEqual(self.run_main("--profile calm --seed 1")[0], 0)
        self.assertEqual(self.run_main("--profile drain --seed 1", KNOWN_DRAIN)[0], 0)
        self.assertEqual(self.run_main("--profile drain --seed 1 --keep f1,w1")[0], 0)

    def test_repeated(self) -> None:
        """The whole trace is printed if requested, and the command printed for a shrunk run repeats its violation."""
        status, output = self.run_main("--profile drain --seed 1 --trace")
        self.assertEqual(status, 1)
        self.assertIn("probe -> ", output)
        (shrunk,) = (line for line in output.splitlines() if line.startswith("shrunk: "))
        status, repeated = self.run_main(shrunk.partition("tests.simulation ")[2])
        self.assertEqual(status, 1)
        self.assertIn("a drain stays", repeated)
        self.assertNotIn("shrunk: ", repeated)

    def test_seconds(self) -> None:
        """Without time left only the required rounds are run; with some, more follow."""
        _, output = self.run_main("--profile calm --seeds 1-2 --seconds 0.000001")
        self.assertIn("seeds 1 to 2 of each profile", output)
        looks = iter([True, True, False])
        self.assertEqual(list(Rounds(1, 2, lambda: next(looks)).seeds()), [1, 2, 3, 4])

    def test_fresh(self) -> None:
        """Fresh seeds begin with the time, which is printed, and are at least as many as the fixed ones."""
        self.patch(command, "LAST", 3)
        _, output = self.run_main("--profile calm --fresh")
        self.assertRegex(output, r"seeds from 1\d{9}, profiles calm\n")
        self.assertRegex(output, r"\| calm \| 3 \|")

    def test_record(self) -> None:
        """The figures replace the text between the marks of a document, and nothing else."""
        document = Path(self.mktemp())
        document.write_text("before\n<!-- simulation -->\nold\n<!-- end of simulation -->\nafter\n")
        self.run_main(f"--profile calm --seeds 1 --record {document}")
        text = document.read_text()
        self.assertTrue(text.startswith("before\n<!-- simulation -->\n"))
        self.assertTrue(text.endswith("\n<!-- end of simulation -->\nafter\n"))
        self.assertIn("| calm | 1 |", text)
        self.assertNotIn("old", text)

    def test_refused(self) -> None:
        """Senseless arguments are refused, with the reason."""
        for arguments, why in (
            ("--seed 1", "needs one --profile"),
            ("--seed 1 --profile calm --profile end", "needs one --profile"),
            ("--keep f1", "need --seed"),
            ("--seed 1 --profile calm --keep f1", "the plan has no f1"),
            ("--seed 1 --profile end --set f1.no=1", "Failover has no no"),
            ("--seed 1 --profile end --set f1.at", "not NAME.FIELD=VALUE"),
            ("--fresh --seeds 1-3", "leave out --seeds"),
            ("--profile nothing", "invalid choice"),
            ("--seeds some", "invalid literal"),
        ):
            status, output = self.run_main(arguments)
            self.assertEqual(status, 2, arguments)
            self.assertIn(why, output)

    def test_real_profiles(self) -> None:
        """Without arguments each real profile has a run."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            main(["--seeds", "1"], evolve(SCOPE, known=(), make=lambda seed, profile: CALM))
        for profile in SCOPE.profiles:
            self.assertIn(f"| {profile} | 1 |", output.getvalue())
