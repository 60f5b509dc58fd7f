"""Commands that ``allowed_commands`` and ``scripts_only`` allow."""

import os

from attrs import evolve

from scheduler.worker.commands import NotRunnable
from tests.unit.worker.policy_case import PolicyCase


class AllowedCommandsTests(PolicyCase):
    def allows(self, command: str, path: str = "", **more: object) -> bool:
        try:
            self.run_(command, path, **more)
        except NotRunnable as refused:
            self.assertIn("is not allowed here; allowed_commands has: ", str(refused))
            return False
        return True

    def test_name(self) -> None:
        """A name allows what PATH finds by it, also when that is written in full, and no namesake elsewhere."""
        self.restrict("sh")
        evil = self.program("outside/sh")
        self.assertTrue(self.allows("sh"))
        self.assertTrue(self.allows(self.sh))
        self.assertFalse(self.allows(evil))
        self.assertFalse(self.allows(self.program("tools/sh")))  # not the first on PATH
        self.assertFalse(self.allows("find"))

    def test_script_name(self) -> None:
        """The name of a script allows nobody to run it by a program that is not allowed, nor a namesake."""
        self.restrict("count.sh")
        self.assertFalse(self.allows("sh", "count.sh"))
        os.chmod(self.count, 0o755)
        self.assertFalse(self.allows(self.count))

    def test_absolute(self) -> None:
        """An absolute path allows that program, found by name or written in full."""
        self.restrict(self.python)
        self.assertTrue(self.allows("python"))
        self.assertTrue(self.allows(self.python))
        self.assertTrue(self.allows(f"{self.bin}/../tools/python"))
        self.assertFalse(self.allows("sh"))

    def test_linked_folder(self) -> None:
        """By which link its folder is reached makes no difference, on either side."""
        (self.root / "usr").symlink_to(self.bin)
        self.restrict(f"{self.root}/usr/sh")
        self.assertTrue(self.allows("sh"))
        self.restrict(self.sh)
        self.assertTrue(self.allows(f"{self.root}/usr/sh"))

    def test_linked_program(self) -> None:
        """Two names of one program are two commands: it may do different things by them."""
        (self.bin / "ls").symlink_to("sh")
        self.restrict(str(self.bin / "ls"))
        self.assertTrue(self.allows("ls"))
        self.assertFalse(self.allows("sh"))

    def test_wildcards(self) -> None:
        """Wildcards stand for any part of a name, and never for a slash or dots."""
        self.restrict(f"{self.tools}/*")
        deeper = self.program("tools/sub/thing")
        self.assertTrue(self.allows("python"))
        self.assertFalse(self.allows(f"{self.tools}/../bin/sh"))
        self.assertFalse(self.allows(deeper))
        self.restrict("py*", "f?nd")
        self.assertTrue(self.allows("python"))
        self.assertTrue(self.allows("find"))
        self.assertFalse(self.allows("sh"))

    def test_case(self) -> None:
        """Names are compared letter by letter."""
        self.restrict("SH")
        self.assertFalse(self.allows("sh"))

    def test_nothing_allowed(self) -> None:
        """An empty list allows nothing."""
        self.policy = evolve(self.policy, allowed_commands=())
        self.assertEqual(self.refusal("sh"), "command 'sh' is not allowed here; allowed_commands has: nothing")


class ScriptsOnlyTests(PolicyCase):
    """Only scripts in scripts_dir."""

    def setUp(self) -> None:
        super().setUp()
        self.restrict(scripts_only=True)

    def test_script(self) -> None:
        """A script there runs, by the program its #! line names, however either is written."""
        self.assertEqual(self.run_("sh", "count.sh", "3"), [self.sh, self.count, "3"])
        self.assertEqual(self.run_(self.sh, self.count), [self.sh, self.count])

    def test_env(self) -> None:
        """A #! line that looks for its program by env is understood."""
        for line in ("#!/usr/bin/env python", "#! /usr/bin/env -S A=b python -I"):
            self.file("scripts/s.py", f"{line}\n")
            self.assertEqual(self.run_("python", "s.py")[0], self.python)
            self.assertIn("is not what the #! line of 's.py' names", self.refusal("sh", "s.py"))

    def test_no_path(self) -> None:
        """Without a script nothing runs, whatever the arguments are."""
        self.assertEqual(
            self.refusal("sh", "", "-c", "echo"),
            f"path: is needed, scripts_only is set; allowed is a script inside scripts_dir, {self.scripts}",
        )
        self.assertIn("path: is needed", self.refusal("sh", "", self.count))

    def test_absolute_outside(self) -> None:
        """An absolute path must lead there as well."""
        self.assertIn("leads out of scripts_dir", self.refusal("sh", self.secret))
        self.assertIn("leads out of scripts_dir", self.refusal("sh", f"{self.scripts}/../outside/secret"))

    def test_folder(self) -> None:
        """A folder is no script."""
        self.assertEqual(self.refusal("sh", "."), "path '.' is not a file; scripts_only is set")

    def test_script_as_argument(self) -> None:
        """A program that would take the script for something else than its code is refused."""
        self.assertEqual(
            self.refusal("find", "count.sh", "-exec", "sh", "-c", "evil", ";"),
            "command 'find' is not what the #! line of 'count.sh' names; "
            "scripts_only allows that, or a command that allowed_commands lists by its name",
        )
        self.file("scripts/bare", "echo\n")
        self.file("scripts/empty", "")
        for path in ("bare", "empty"):
            self.assertIn("is not what the #! line", self.refusal("sh", path))

    def test_listed_command(self) -> None:
        """A command that is listed may run every script there, and only scripts."""
        self.file("scripts/bare", "echo\n")
        self.restrict("sh", "*", scripts_only=True)
        self.assertEqual(self.run_("sh", "bare")[0], self.sh)
        self.assertRaises(NotRunnable, self.run_, "sh", "", "-c", "echo")
        self.assertRaises(NotRunnable, self.run_, "find", "bare")

    def test_unlisted_command(self) -> None:
        """A #! line does not allow what allowed_commands does not."""
        self.restrict("python", scripts_only=True)
        self.assertIn("is not allowed here", self.refusal("sh", "count.sh"))
