"""The policy: where programs and scripts are found, and which commands are refused, with their reasons."""

import os
import subprocess
import sys
from pathlib import Path

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import JobSpec
from scheduler.worker.commands import NotRunnable, Policy, mounted_noexec
from scheduler.worker.environment import BaseEnvironment
from tests.namespaces import in_namespaces

SCRIPT = b"#!/bin/sh\necho hi\n"


class PolicyCase(SynchronousTestCase):
    """A machine of folders: two on PATH, one of scripts, one elsewhere."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.root = self.root.resolve()
        self.bin, self.tools, self.scripts, self.outside = (
            self.root / name for name in ("bin", "tools", "scripts", "outside")
        )
        for folder in (self.bin, self.tools, self.scripts, self.outside):
            folder.mkdir()
        self.sh = self.program("bin/sh")
        self.find = self.program("bin/find")
        self.python = self.program("tools/python")
        self.count = self.file("scripts/count.sh", f"#!{self.sh}\n")
        self.secret = self.file("outside/secret", "s")
        self.policy = Policy(
            scripts_dir=str(self.scripts),
            scripts_only=False,
            allowed_commands=("*",),
            base=BaseEnvironment(own={"PATH": f"{self.bin}:{self.tools}"}),
        )

    def file(self, name: str, content: str = "") -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return str(path)

    def program(self, name: str) -> str:
        path = self.file(name, "#!/bin/true\n")
        os.chmod(path, 0o755)
        return path

    def restrict(self, *allowed: str, scripts_only: bool = False) -> None:
        self.policy = evolve(self.policy, allowed_commands=allowed or ("*",), scripts_only=scripts_only)

    def run_(self, command: str = "sh", path: str = "", *args: str, **more: object) -> list[str]:
        return self.policy.command_line_thd(JobSpec(command=command, path=path, args=args, **more), None)

    def refusal(self, command: str = "sh", path: str = "", *args: str, **more: object) -> str:
        return str(self.assertRaises(NotRunnable, self.run_, command, path, *args, **more))


class CommandTests(PolicyCase):
    """Where a command is found."""

    def test_on_path(self) -> None:
        """A name is found in the first folder of PATH that has it as a program."""
        self.program("tools/sh")
        self.assertEqual(self.run_("sh"), [self.sh])
        self.assertEqual(self.run_("python"), [self.python])

    def test_unfit_is_passed_over(self) -> None:
        """A file that is no program does not hide a program further on."""
        (self.bin / "thing").mkdir()
        thing = self.program("tools/thing")
        self.assertEqual(self.run_("thing"), [thing])

    def test_absolute(self) -> None:
        """An absolute path is taken as it is, links and all: a program may go by its name."""
        (self.outside / "alias").symlink_to(self.sh)
        self.assertEqual(self.run_(str(self.outside / "alias")), [str(self.outside / "alias")])

    def test_order(self) -> None:
        """The path comes first, then the arguments."""
        self.assertEqual(self.run_("sh", "count.sh", "a", "", "c d"), [self.sh, self.count, "a", "", "c d"])
        self.assertEqual(self.run_("sh", "", "-c", "echo"), [self.sh, "-c", "echo"])

    def test_not_found(self) -> None:
        """A name that is nowhere says where was looked."""
        self.assertEqual(self.refusal("nope"), f"command 'nope' not found on PATH ({self.bin}:{self.tools})")

    def test_not_executable(self) -> None:
        """A file that is there and no program is told."""
        data = self.file("bin/data")
        self.assertEqual(
            self.refusal("data"),
            f"command 'data' not found on PATH ({self.bin}:{self.tools}); {data} is not executable",
        )
        self.assertEqual(self.refusal(data), f"command '{data}' is not executable")

    def test_absolute_unfit(self) -> None:
        """A path that leads to nothing, to a folder, or nowhere is refused."""
        self.assertEqual(self.refusal("/no/such"), "command '/no/such' not found")
        self.assertEqual(self.refusal(str(self.bin)), f"command '{self.bin}' is a directory")
        self.assertEqual(self.refusal("/dev/null"), "command '/dev/null' is not a file")
        self.assertIn("can't be used (File name too long)", self.refusal("/" + "x" * 5000))

    def test_relative(self) -> None:
        """A command is no relative path."""
        for command in ("./sh", "bin/sh", "../bin/sh"):
            self.assertIn("must be the name of a program on PATH or an absolute path", self.refusal(command))

    def test_nothing(self) -> None:
        """Without a command there is nothing to run."""
        self.assertEqual(self.refusal(""), "command: must not be empty")

    def test_names_of_folders(self) -> None:
        """A folder is no program."""
        for command in (".", ".."):
            self.assertIn("not found on PATH", self.refusal(command))

    def test_relative_folder_on_path(self) -> None:
        """A folder of PATH that the job's own folder would decide is passed over."""
        relative = f"{os.path.relpath(self.bin)}::{self.tools}"
        self.policy = evolve(self.policy, base=BaseEnvironment(own={"PATH": relative}))
        self.assertRaises(NotRunnable, self.run_, "sh")
        self.assertEqual(self.run_("python"), [self.python])

    def test_path_of_the_job(self) -> None:
        """The PATH that a job is given decides what its command is, by its absolute folders alone."""
        own = self.program("outside/own")
        self.program("outside/sh")
        path = {"PATH": f"outside:{self.outside}"}
        self.assertEqual(self.run_("own", env=path), [own])
        self.assertEqual(self.run_("sh", env=path), [str(self.outside / "sh")])
        missing = self.refusal("python", env=path)
        self.assertEqual(missing, f"command 'python' not found on PATH (outside:{self.outside})")
        self.assertEqual(self.refusal("sh", env={"PATH": ""}), "command 'sh' not found on PATH ()")

    def test_path_of_the_job_where_restricted(self) -> None:
        """Where anything is restricted it decides nothing: the worker's does."""
        self.program("outside/sh")
        self.restrict("sh")
        self.assertEqual(self.run_("sh", env={"PATH": str(self.outside)}), [self.sh])

    def test_path_of_the_site(self) -> None:
        """The PATH that the configuration gives to every job is the worker's."""
        own = self.program("outside/sh")
        self.policy = evolve(self.policy, base=evolve(self.policy.base, site={"PATH": str(self.outside)}))
        self.assertEqual(self.run_("sh"), [own])
        self.restrict("sh")
        self.assertEqual(self.run_("sh"), [own])

    def test_noexec(self) -> None:
        """A program on a file system where nothing may be executed says so."""
        self.assertFalse(mounted_noexec(str(self.root)))
        source = (
            "import sys; from scheduler.worker.commands import Policy; from scheduler.model import JobSpec; "
            "Policy('/', False, ('*',)).command_line_thd(JobSpec(command=sys.argv[1]), None)"
        )
        program = f"{self.root}/noexec/program"
        prepare = f"mkdir -p {self.root}/noexec && mount -t tmpfs -o noexec none {self.root}/noexec && "
        prepare += f"cp /bin/true {program}"
        command = in_namespaces(prepare, sys.executable, "-c", source, program)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        tried = subprocess.run(command, env=env, capture_output=True, check=False, text=True)
        self.assertIn(f"'{program}' is on a file system that is mounted noexec", tried.stderr)

    def test_impossible_text(self) -> None:
        """Text that no command line can hold is refused in every field, and shown quoted and shortened."""
        for value, problem in (("a\0b", "holds a NUL byte"), ("\ud800", "holds what is no character")):
            for refusal in (
                self.refusal(value),
                self.refusal("sh", value),
                self.refusal("sh", "", "x", value),
                self.refusal("sh", cwd=value),
            ):
                self.assertTrue(refusal.endswith(problem), refusal)
                self.assertTrue(refusal.isprintable())
        self.assertLess(len(self.refusal("x" * 100_000)), 1000)


class PathTests(PolicyCase):
    """Where a path leads."""

    def test_relative(self) -> None:
        """A relative path is one inside scripts_dir, however it is written."""
        nested = self.file("scripts/a/b.sh")
        self.assertEqual(self.run_("sh", "count.sh")[1], self.count)
        self.assertEqual(self.run_("sh", "a/../a/./b.sh")[1], nested)

    def test_link_inside(self) -> None:
        """A link may lead from one place inside to another."""
        (self.scripts / "link").symlink_to("count.sh")
        self.assertEqual(self.run_("sh", "link")[1], self.count)

    def test_scripts_dir_is_a_link(self) -> None:
        """scripts_dir may itself be reached by a link."""
        (self.root / "current").symlink_to(self.scripts)
        self.policy = evolve(self.policy, scripts_dir=str(self.root / "current"))
        self.assertEqual(self.run_("sh", "count.sh")[1], self.count)

    def escapes(self) -> list[str]:
        """Ways out, to a file that is there."""
        (self.scripts / "file").symlink_to(self.secret)
        (self.scripts / "folder").symlink_to(self.outside)
        (self.scripts / "up").symlink_to("..")
        (self.scripts / "twice").symlink_to("folder/secret")
        self.file("scripts-evil/secret")
        return [
            "../outside/secret",
            "./../outside/secret",
            "a/../../outside/secret",
            "count.sh/../../outside/secret",
            "file",
            "folder/secret",
            "up/outside/secret",
            "twice",
            "..",
            "../scripts-evil/secret",
            "folder/../outside/secret",
        ]

    def test_escapes(self) -> None:
        """No way of writing it leads out: not .., not a link, not a folder whose name only begins the same."""
        for path in self.escapes():
            self.assertEqual(
                self.refusal("sh", path),
                f"path {path!r} leads out of scripts_dir, {self.scripts}; allowed is a script inside it",
            )

    def test_absolute(self) -> None:
        """An absolute path leads anywhere, and is left as it is."""
        self.assertEqual(self.run_("sh", self.secret)[1], self.secret)
        self.assertEqual(self.run_("sh", f"{self.scripts}/../outside/secret")[1], f"{self.scripts}/../outside/secret")

    def test_not_found(self) -> None:
        """A path that leads to nothing says where was looked; whether a file is outside is not told."""
        self.assertEqual(self.refusal("sh", "nope"), f"path 'nope' not found in scripts_dir, {self.scripts}")
        self.assertEqual(self.refusal("sh", "/no/such"), "path '/no/such' not found")
        self.assertIn("leads out", self.refusal("sh", "../outside/nope"))

    def test_no_scripts_dir(self) -> None:
        """A scripts_dir that is not there matters only to a job that names a script."""
        self.policy = evolve(self.policy, scripts_dir="/no/such")
        self.assertEqual(self.run_("sh"), [self.sh])
        self.assertEqual(self.refusal("sh", "x"), "path 'x' not found in scripts_dir, /no/such")

    def test_looping_link(self) -> None:
        """A link that leads to itself is refused."""
        (self.scripts / "loop").symlink_to("loop")
        self.assertIn("can't be used (Too many levels of symbolic links)", self.refusal("sh", "loop"))

    def test_whatever_is_written(self) -> None:
        """Every path of names, dots, slashes and links that is allowed leads inside the folder."""
        self.escapes()
        self.restrict("sh", scripts_only=True)
        parts = st.sampled_from(
            ["..", ".", "", "count.sh", "folder", "up", "file", "scripts", "outside", "secret", "\0", "/", "~", "*"]
        )

        @settings(max_examples=300, database=None)
        @given(st.lists(parts, max_size=7))
        def check(written: list[str]) -> None:
            try:
                path = self.run_("sh", "/".join(written))[1]
            except NotRunnable:
                return
            self.assertTrue(os.path.realpath(path).startswith(f"{self.scripts}/"), path)

        check()


class AllowedCommandsTests(PolicyCase):
    """The commands that ``allowed_commands`` allows."""

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


class ScriptTests(PolicyCase):
    """A script that comes with the job."""

    def script(self, content: bytes, *args: str) -> list[str]:
        return self.policy.command_line_thd(JobSpec(script=content, args=args), "/spool/script")

    def refused(self, content: bytes) -> str:
        return str(self.assertRaises(NotRunnable, self.script, content))

    def test_runs(self) -> None:
        """A script runs by itself, with its arguments."""
        self.assertEqual(self.script(SCRIPT, "a"), ["/spool/script", "a"])
        self.assertEqual(self.script(b"#! \t/bin/sh -e"), ["/spool/script"])

    def test_restricted(self) -> None:
        """Where anything is restricted it is not allowed."""
        self.restrict("sh")
        self.assertIn("not allowed here, where allowed_commands restricts", self.refused(SCRIPT))
        self.restrict(scripts_only=True)
        self.assertIn("not allowed here, where scripts_only restricts", self.refused(SCRIPT))

    def test_no_interpreter(self) -> None:
        """A script that the kernel could not run is refused with the reason."""
        self.assertIn("must begin with a #! line", self.refused(b"echo hi\n"))
        self.assertIn("must begin with a #! line", self.refused(b""))
        self.assertIn("'/no/such' that its #! line names not found", self.refused(b"#!/no/such\n"))
        self.assertIn("ends in a carriage return", self.refused(b"#!/bin/sh\r\necho\r\n"))
        self.assertIn("begins with a byte order mark", self.refused(b"\xef\xbb\xbf" + SCRIPT))
        self.assertIn("'sh' that its #! line names is not an absolute path", self.refused(b"#!sh\n"))
