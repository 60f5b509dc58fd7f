"""The variables of a job: whose come first, and which are refused, in which words."""

import os
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import JobSpec
from scheduler.names import env_name_problem
from scheduler.worker.commands import NotRunnable, Policy
from scheduler.worker.environment import BaseEnvironment, own_variables
from scheduler.worker.shim.spool import Spool


class EnvironmentTests(SynchronousTestCase):
    """The variables of jobs on a machine with a home folder."""

    def setUp(self) -> None:
        self.home = str(Path(self.mktemp()).absolute())
        os.mkdir(self.home)
        self.own = {"PATH": "/bin", "HOME": self.home, "LANG": "C"}
        self.policy = Policy("/scripts", False, ("*",), BaseEnvironment(own=self.own))

    def environment(self, **env: str) -> dict[str, str]:
        return self.policy.environment_thd("j1", JobSpec(command="sh", env=env), Spool("/jobs/j1"))

    def site(self, **variables: str) -> None:
        self.policy = evolve(self.policy, base=evolve(self.policy.base, site=variables))

    def refusal(self, **env: str) -> str:
        return str(self.assertRaises(NotRunnable, self.environment, **env))

    def restrictions(self) -> tuple[Policy, ...]:
        return evolve(self.policy, scripts_only=True), evolve(self.policy, allowed_commands=("sh",))

    def test_base(self) -> None:
        """A job has the worker's base, no buffer in Python, its id, its spool, and what it was given, which wins."""
        self.assertEqual(
            self.environment(LANG="de", A=""),
            {
                "PATH": "/bin",
                "HOME": self.home,
                "LANG": "de",
                "PYTHONUNBUFFERED": "1",
                "SCHEDULER_JOB_ID": "j1",
                "SCHEDULER_SPOOL": "/jobs/j1",
                "A": "",
            },
        )

    def test_site(self) -> None:
        """Variables of the configuration replace the worker's own, and those of the job replace both."""
        self.site(https_proxy="http://proxy:3128", LANG="fr", PYTHONUNBUFFERED="", LD_LIBRARY_PATH="/opt/lib")
        found = self.environment(LANG="de")
        self.assertEqual((found["https_proxy"], found["LANG"]), ("http://proxy:3128", "de"))
        self.assertEqual((found["PYTHONUNBUFFERED"], found["LD_LIBRARY_PATH"]), ("", "/opt/lib"))
        self.assertEqual(self.environment()["LANG"], "fr")

    def test_no_home(self) -> None:
        """Where the user's home folder does not exist it is the job's work folder, unless somebody says otherwise."""
        os.rmdir(self.home)
        self.assertEqual(self.environment()["HOME"], "/jobs/j1/work")
        self.assertEqual(self.environment(HOME="/no/such")["HOME"], "/no/such")
        self.site(HOME="/srv")
        self.assertEqual(self.environment()["HOME"], "/srv")

    def test_names(self) -> None:
        """A name that is none, or not for it to set, is refused with the reason."""
        for name in ("", "1A", "A-B", "A B", "A=B", "é", "A\n", "SCHEDULER_SPOOL", "NOTIFY_SOCKET"):
            self.assertIsNotNone(env_name_problem(name))
            self.assertEqual(self.refusal(**{name: "x"}), f"env {name!r}: {env_name_problem(name)}")
        for name in ("A", "_", "a1_B", "LDX", "OLD_PATH", "MY_SCHEDULER_X"):
            self.assertIsNone(env_name_problem(name))

    def test_values(self) -> None:
        """A value that no variable can hold is refused; any other is not."""
        self.assertIn("holds a NUL byte", self.refusal(A="x\0"))
        self.assertEqual(self.environment(A="=\n'é")["A"], "=\n'é")

    def test_steering(self) -> None:
        """A variable that makes a program run another is refused where what may run is restricted, and only there."""
        names = ("PATH", "BASH_ENV", "SHELLOPTS", "PS4", "PYTHONPATH", "PERL5OPT", "GIT_SSH_COMMAND", "https_proxy")
        for name in names:
            self.assertEqual(self.environment(**{name: "x"})[name], "x")
        for policy in self.restrictions():
            self.policy = policy
            for name in names:
                self.assertIn("restricted", self.refusal(**{name: "x"}))
            self.assertEqual(self.environment(DEBUG="1")["DEBUG"], "1")

    def test_dynamic_linker(self) -> None:
        """A variable of the dynamic linker is refused with that reason."""
        self.assertEqual(self.environment(LD_LIBRARY_PATH="/opt/lib")["LD_LIBRARY_PATH"], "/opt/lib")
        for policy in self.restrictions():
            self.policy = policy
            self.assertEqual(
                self.refusal(LD_PRELOAD="x"),
                "env 'LD_PRELOAD': belongs to the dynamic linker (LD_*), and what may run here is restricted",
            )

    def test_own(self) -> None:
        """The base is the worker's own, and nothing else of it."""
        own = {"PATH": "/p", "HOME": "/h", "USER": "u", "LOGNAME": "l", "LANG": "de_DE.UTF-8", "TZ": "Asia/Tokyo"}
        self.assertEqual(own_variables({**own, "LD_PRELOAD": "x", "AWS_SECRET": "y"}), own)

    def test_fallbacks(self) -> None:
        """Variables that the worker lacks get defaults, except the time zone: an empty one would be another zone."""
        base = own_variables({"TZ": ""})
        self.assertEqual(set(base), {"PATH", "HOME", "USER", "LOGNAME", "LANG"})
        self.assertTrue(all(base.values()))
        self.assertEqual(base["USER"], base["LOGNAME"])
        self.assertTrue(os.path.isabs(base["HOME"]))
