"""The variables of a job: those that the worker gives to each, and those that a job may set.

Theory of operation. A job never inherits the worker's environment. It gets a base: a few of the worker's own variables,
those of ``[worker] env`` in the configuration, and those that identify the job. Its own ``env`` comes last. If anything
is restricted, variables that can make a program run another are refused. No list of these is complete: a policy that
allows an interpreter allows all that its variables, arguments and standard input can make it do.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Mapping

from attrs import field, frozen

from scheduler.names import env_name_problem
from scheduler.worker.shim.spool import SPOOL_VARIABLE, Spool

_STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Variables by which a shell, an interpreter or a common tool finds code, configuration or other programs.
_STEERING = re.compile(
    r"PATH|HOME|SHELL|IFS|ENV|CDPATH|PS4|SHELLOPTS|BASHOPTS|BASH_.*|PROMPT_COMMAND|ZDOTDIR|GCONV_PATH|GLIBC_.*|MALLOC_.*"
    r"|LOCPATH|NLSPATH|TERMINFO.*|HOSTALIASES|PYTHON.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*|NODE_.*|NPM_.*|LUA_.*|PHP.*"
    r"|R_(HOME|LIBS.*|PROFILE.*|ENVIRON.*)|TCL.*|_?JAVA_.*|JDK_.*|CLASSPATH|AWK.*PATH|GIT_.*|SSH_.*|RSYNC_.*|CVS_.*|SVN_.*|TAR_OPTIONS|MAKEFLAGS|MFLAGS|GNUMAKEFLAGS"
    r"|LESS(OPEN|CLOSE|KEY.*)|.*PAGER|EDITOR|VISUAL|BROWSER|XDG_.*|DOCKER_.*|OPENSSL_.*|GRPC_.*|.*_PROXY",
    re.IGNORECASE,
)


def own_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Take the worker's own variables that every job gets, with a default for each that the worker lacks."""
    try:
        user = pwd.getpwuid(os.geteuid())
        name, home = user.pw_name, user.pw_dir
    except KeyError:
        name, home = str(os.geteuid()), "/"
    name = environ.get("USER") or environ.get("LOGNAME") or name
    own = {
        "PATH": environ.get("PATH") or _STANDARD_PATH,
        "HOME": environ.get("HOME") or home,
        "USER": name,
        "LOGNAME": environ.get("LOGNAME") or name,
        "LANG": environ.get("LANG") or "C.UTF-8",
    }
    if environ.get("TZ"):  # an empty one would mean UTC, and not the machine's time zone
        own["TZ"] = environ["TZ"]
    return own


@frozen
class BaseEnvironment:
    """The variables that every job on this machine gets."""

    #: ``[worker] env`` of the configuration.
    site: Mapping[str, str] = field(factory=dict)
    own: Mapping[str, str] = field(factory=own_variables)

    @property
    def path(self) -> str:
        return {**self.own, **self.site}.get("PATH", "")

    def of_job_thd(self, job_id: str, spool: Spool, given: Mapping[str, str]) -> dict[str, str]:
        """Make all variables of a job that sets ``given``."""
        own = dict(self.own)
        if "HOME" not in {**self.site, **given} and not os.path.isdir(own.get("HOME", "")):
            own["HOME"] = spool.work
        mark = {"SCHEDULER_JOB_ID": job_id, SPOOL_VARIABLE: spool.folder}
        return {**own, "PYTHONUNBUFFERED": "1", **self.site, **mark, **given}


def variable_problem(name: str, value: str, restricted: bool) -> str | None:
    """Explain why a job may not set a variable; ``restricted``: not every command may run here."""
    problem = env_name_problem(name) or text_problem(value)
    if problem is None and restricted and name.startswith("LD_"):
        return "belongs to the dynamic linker (LD_*), and what may run here is restricted"
    if problem is None and restricted and _STEERING.fullmatch(name):
        return "can make a program run another, and what may run here is restricted"
    return problem


def unlisted_problem(name: str, allowed: Collection[str] | None) -> str | None:
    """Explain why a job may not set a variable if only the ``allowed`` may be set; ``None``: no list is given."""
    if allowed is None or any(name == each or (each[-1] == "*" and name.startswith(each[:-1])) for each in allowed):
        return None
    return f"is not allowed here; allowed_env has: {', '.join(allowed) or 'nothing'}"


def text_problem(value: str) -> str | None:
    """Explain why the kernel would not take ``value`` as an argument or a variable."""
    if "\0" in value:
        return "holds a NUL byte"
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return "holds what is no character"
    return None
