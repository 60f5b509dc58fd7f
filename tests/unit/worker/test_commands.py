"""Where programs and scripts are found, and the reasons of those that are refused."""

import os
import subprocess
import sys

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.model import JobSpec
from scheduler.worker.commands import NotRunnable, mounted_noexec
from scheduler.worker.environment import BaseEnvironment
from tests.namespaces import in_namespaces
from tests.unit.worker.policy_case import SCRIPT, PolicyCase


class CommandTests(PolicyCase):
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
        """A program that is named by an absolute path is started by its resolved path."""
        (self.outside / "alias").symlink_to(self.sh)
        self.assertEqual(self.run_(str(self.outside / "alias")), [self.sh])

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
            *("../outside/secret", "./../outside/secret", "a/../../outside/secret", "count.sh/../../outside/secret"),
            *("file", "folder/secret", "up/outside/secret", "twice", "..", "../scripts-evil/secret"),
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
