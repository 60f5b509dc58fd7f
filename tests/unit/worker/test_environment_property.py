"""The variables of a job: any that pass can be given to a program, and can't steer it where that is restricted."""

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker.environment import BaseEnvironment, variable_problem
from scheduler.worker.shim.spool import SPOOL_VARIABLE, Spool

STEERING = st.sampled_from(
    (
        *("PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "BASH_FUNC_ls", "PS4", "PROMPT_COMMAND", "GCONV_PATH"),
        *(
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "NODE_OPTIONS",
            "LUA_INIT",
            "JAVA_TOOL_OPTIONS",
        ),
        *(
            "_JAVA_OPTIONS",
            "GIT_SSH_COMMAND",
            "GIT_EXTERNAL_DIFF",
            "LESSOPEN",
            "PAGER",
            "MANPAGER",
            "EDITOR",
            "BROWSER",
        ),
        *("OPENSSL_CONF", "https_proxy", "ALL_PROXY", "XDG_CONFIG_HOME", "MAKEFLAGS", "R_PROFILE_USER", "TAR_OPTIONS"),
    )
)
CASES = st.sampled_from((str.lower, str.upper, str.title, str.swapcase, str))
LINKER = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", max_size=20).map(lambda rest: f"LD_{rest}")
NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z") | st.text(max_size=10) | STEERING | LINKER
VALUES = st.text() | st.sampled_from(("\0", "a\0", "\ud800", "\udcff", "=", "\n", "é"))


class VariableTests(SynchronousTestCase):
    """Properties of the variables that a job may set."""

    @given(NAMES, VALUES, st.booleans())
    def test_executable(self, name: str, value: str, restricted: bool) -> None:
        """A variable that passes is one that the kernel takes: a name without ``=``, and no NUL in either."""
        if variable_problem(name, value, restricted) is None:
            entry = os.fsencode(name) + b"=" + os.fsencode(value)
            self.assertNotIn(b"\0", entry)
            self.assertEqual(entry.partition(b"=")[::2], (os.fsencode(name), os.fsencode(value)))

    @given(NAMES, VALUES)
    def test_restrictions(self, name: str, value: str) -> None:
        """A variable that passes where what may run is restricted passes where it is not."""
        if variable_problem(name, value, True) is None:
            self.assertIsNone(variable_problem(name, value, False))

    @given(STEERING, CASES, VALUES)
    def test_steering(self, name: str, case: object, value: str) -> None:
        """A variable that makes a program run another is refused in any spelling, where that is restricted."""
        self.assertIsNotNone(variable_problem(case(name), value, True))

    @given(LINKER, VALUES)
    def test_linker(self, name: str, value: str) -> None:
        """Every variable of the dynamic linker is refused where what may run is restricted."""
        self.assertIsNotNone(variable_problem(name, value, True))

    @given(st.dictionaries(NAMES, VALUES, max_size=5), st.dictionaries(NAMES, VALUES, max_size=3))
    def test_identity(self, given_: dict[str, str], site: dict[str, str]) -> None:
        """Variables that pass change neither the id nor the spool that a job is told."""
        passed = {name: value for name, value in given_.items() if variable_problem(name, value, False) is None}
        found = BaseEnvironment(site, {"PATH": "/bin", "HOME": "/"}).of_job_thd("j1", Spool("/jobs/j1"), passed)
        self.assertEqual((found["SCHEDULER_JOB_ID"], found[SPOOL_VARIABLE]), ("j1", "/jobs/j1"))
        self.assertEqual({name: found[name] for name in passed}, passed)
