"""The paths of programs and scripts that another user could change, and by which path a job is started."""

import os
from pathlib import Path

from attrs import evolve

from scheduler.model import JobSpec
from scheduler.worker.commands import NotRunnable
from scheduler.worker.shim.spool import Spool
from tests.unit.worker.policy_case import PolicyCase

NOBODY = 65534


class GuardedTests(PolicyCase):
    """No other user may decide what runs, restricted or not."""

    def assert_refused(self, said: str, name: str, problem: str) -> None:
        self.assertRegex(
            said, f"^{name} '[^']*' is not safe to run here: .*{problem}.*; only root and the worker's user"
        )

    def test_program(self) -> None:
        """A program that others may write is refused by name and by path, and the component is named."""
        self.restrict("sh", str(self.bin / "sh"))
        os.chmod(self.sh, 0o757)
        for command in ("sh", self.sh):
            self.assert_refused(self.refusal(command), "command", f"all users may write {self.sh} ")
        os.chmod(self.sh, 0o755)
        os.chmod(self.bin, 0o777)
        self.assert_refused(self.refusal("sh"), "command", f"all users may write {self.bin} ")
        os.chmod(self.bin, 0o1777)  # like /tmp: nobody else can replace the program
        self.assertEqual(self.run_("sh"), [self.sh])

    def test_program_behind_a_link(self) -> None:
        """The resolved path counts: a safe link to an unsafe program is refused."""
        link = self.bin / "link"
        link.symlink_to(self.program("outside/tool"))
        self.restrict("link")
        self.assertEqual(self.run_("link"), [f"{self.outside}/tool"])
        os.chmod(self.outside, 0o777)
        self.assert_refused(self.refusal("link"), "command", f"all users may write {self.outside} ")

    def test_unsafe_link(self) -> None:
        """A link that others can lead elsewhere is refused, wherever it leads now, as program and as script."""
        (self.scripts / "open").mkdir()
        program, script, device = self.outside / "sh", self.scripts / "open/link", self.outside / "device"
        for link, target in ((program, self.sh), (script, self.count), (device, "/dev/null")):
            link.symlink_to(target)
        for restrict in (False, True):
            if restrict:
                self.restrict("sh", str(program))
            for folder in (self.outside, script.parent):
                os.chmod(folder, 0o755)
            self.assertEqual(self.run_(str(program), "open/link"), [self.sh, self.count])
            for folder in (self.outside, script.parent):
                os.chmod(folder, 0o777)
            self.assert_refused(self.refusal(str(program)), "command", f"all users may write {self.outside} ")
            self.assert_refused(self.refusal("sh", "open/link"), "path", f"all users may write {script.parent} ")
            self.assert_refused(self.refusal("sh", str(device)), "path", f"all users may write {self.outside} ")

    def test_device(self) -> None:
        """A device of root's is no problem, and a terminal of another user is refused: it could be typed there."""
        self.assertEqual(self.run_("sh", "/dev/null"), [self.sh, "/dev/null"])
        if os.geteuid() == 0:
            end, terminal = os.openpty()
            self.addCleanup(os.close, end)
            self.addCleanup(os.close, terminal)
            os.chown(terminal, NOBODY, NOBODY)
            for restrict in (False, True):
                if restrict:
                    self.restrict("sh")
                self.assert_refused(self.refusal("sh", os.ttyname(terminal)), "path", "belongs to ")

    def test_script(self) -> None:
        """A script in scripts_dir is refused if others may write it or a folder above, restricted or not."""
        for restrict in (False, True):
            if restrict:
                self.restrict("sh")
            os.chmod(self.count, 0o646)
            self.assert_refused(self.refusal("sh", "count.sh"), "path", f"all users may write {self.count} ")
            os.chmod(self.count, 0o644)
            os.chmod(self.scripts, 0o777)
            self.assert_refused(self.refusal("sh", "count.sh"), "path", f"all users may write {self.scripts} ")
            os.chmod(self.scripts, 0o755)
            self.assertEqual(self.run_("sh", "count.sh"), [self.sh, self.count])

    def test_absolute_script(self) -> None:
        """A file or folder that the client names by its absolute path counts, too."""
        os.chmod(self.secret, 0o666)
        for restrict in (False, True):
            if restrict:
                self.restrict("sh")
            said = self.refusal("sh", self.secret)
            self.assert_refused(said, "path", "all users may write")
            self.assertEqual(said.endswith("; a file that is only read can be one of args"), not restrict, said)
        os.chmod(self.outside, 0o777)
        self.assert_refused(self.refusal("sh", str(self.outside)), "path", "all users may write")

    def test_absolute_path_behind_a_link(self) -> None:
        """Unrestricted, an absolute path is passed as it was given; others must not be able to lead it elsewhere."""
        link = self.outside / "link"
        link.symlink_to(self.count)
        self.assertEqual(self.run_("sh", str(link)), [self.sh, str(link)])
        os.chmod(self.outside, 0o777)
        self.assert_refused(self.refusal("sh", str(link)), "path", f"all users may write {self.outside} ")
        os.chmod(self.outside, 0o1777)
        self.assertEqual(self.run_("sh", str(link)), [self.sh, str(link)])
        if os.geteuid() == 0:
            os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
            self.assert_refused(self.refusal("sh", str(link)), "path", f"{link} belongs to ")

    def test_owner(self) -> None:
        """A program of a third user is refused, whatever its mode."""
        if os.geteuid() != 0:
            self.skipTest("only root can give a file away")
        os.chown(self.sh, NOBODY, NOBODY)
        self.assert_refused(self.refusal("sh"), "command", f"{self.sh} belongs to ")

    def test_everything_allowed(self) -> None:
        """Also unrestricted, a program that others may write is refused, a safe one started by its resolved path."""
        link = self.bin / "link"
        link.symlink_to(self.program("outside/tool"))
        self.assertEqual(self.run_(str(link)), [f"{self.outside}/tool"])
        os.chmod(self.outside, 0o777)
        self.assert_refused(self.refusal(str(link)), "command", f"all users may write {self.outside} ")

    def test_real_programs(self) -> None:
        """The machine's own programs are safe, also behind links of the system."""
        for command in ("/bin/sh", "/usr/bin/env"):
            self.assertEqual(self.run_(command), [str(Path(command).resolve())])


class AllowedEnvironmentTests(PolicyCase):
    """``allowed_env``: the variables that a job may set."""

    def set_(self, *allowed: str, **env: str) -> str:
        """The refusal of a job with these variables; ``""`` if it may set them."""
        policy = evolve(self.policy, allowed_env=allowed)
        try:
            made = policy.environment_thd("j1", JobSpec("sh", env=env), Spool("/jobs/j1"))
        except NotRunnable as refused:
            return str(refused)
        self.assertEqual({name: made[name] for name in env}, env)
        return ""

    def test_listed(self) -> None:
        """Names and patterns on the list are allowed, and all others refused."""
        self.assertEqual(self.set_("LANG", "APP_*", LANG="C", APP_="x", APP_MODE="y"), "")
        for name in ("LANGUAGE", "LAN", "MY_APP_X", "APP", "app_x", "PATH"):
            self.assertEqual(
                self.set_("LANG", "APP_*", **{name: "x"}),
                f"env '{name}': is not allowed here; allowed_env has: LANG, APP_*",
            )

    def test_none(self) -> None:
        """An empty list allows no variable, and a job without any runs."""
        self.assertEqual(self.set_(A="x"), "env 'A': is not allowed here; allowed_env has: nothing")
        self.assertEqual(self.set_(), "")

    def test_all(self) -> None:
        """A star alone allows all that would be allowed without a list, and no more."""
        self.assertEqual(self.set_("*", A="x", LD_PRELOAD="y"), "")
        self.assertIn("SCHEDULER_*", self.set_("*", SCHEDULER_SPOOL="x"))

    def test_restricted(self) -> None:
        """A variable that a restriction refuses stays refused, listed or not."""
        self.restrict("sh")
        self.assertIn("dynamic linker", self.set_("LD_PRELOAD", LD_PRELOAD="x"))
        self.assertIn("can make a program run another", self.set_("PYTHONPATH", PYTHONPATH="x"))

    def test_variables_of_the_machine(self) -> None:
        """The list does not concern what the worker gives to each job."""
        made = evolve(self.policy, allowed_env=()).environment_thd("j1", JobSpec("sh"), Spool("/jobs/j1"))
        self.assertEqual((made["SCHEDULER_JOB_ID"], "PATH" in made), ("j1", True))
