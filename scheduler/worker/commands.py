"""The policy of this machine: the commands that jobs may run, and their command lines.

Theory of operation. The worker decides what may run here. A client, even one with a stolen token, gets the commands
that ``allowed_commands``, ``scripts_only`` and ``scripts_dir`` allow, and no others. So

- if anything is restricted, a program is looked for on the worker's own PATH,
  whatever PATH the job has. Names are compared after the folder is resolved, and
  not the file: a program may do different things under different names;
- a pattern without a slash is a name on that PATH, never the last part of some
  other path. In a pattern with a slash, ``*`` does not cross a slash;
- with ``scripts_only`` it is not enough that an argument is a script:
  ``find count.sh -exec sh`` names a script, too. The command must be the one that
  the script's own ``#!`` line names, or be listed in ``allowed_commands`` by more
  than ``*``.

Other users of this machine must not decide what a client's job does with the rights of the worker's user. So program
and script are resolved, and started by the resolved path. A path that somebody else than root and the worker's user may
write, or lead elsewhere by a link, is refused (``files.writers_problem``), whether or not anything is restricted. Where
nothing is restricted, an absolute ``path`` is passed as the client gave it: ``rm LINK`` must not remove another file.

The kernel opens program and script again, by name, after they are checked. A descriptor would not do: a script needs
its own path. Nobody but root, the worker's user, and so the jobs, can change them in between, unless a file is still
open for writing from before.

A refusal is a sentence for the client that sent the job.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase

from attrs import field, frozen

from scheduler.daemon.files import user, writers_problem
from scheduler.model import JobSpec
from scheduler.scripts import INTERPRETER, LINE_MAX_BYTES, script_problem
from scheduler.worker.environment import BaseEnvironment, text_problem, unlisted_problem, variable_problem
from scheduler.worker.shim.spool import Spool

_EVERYTHING = "*"


class NotRunnable(Exception):
    """A job may not or can't run here; ``str()`` tells the client why, and what is allowed."""


@frozen
class Policy:
    """The rules of ``[worker]`` in the configuration."""

    #: Absolute; it need not exist before a job names a script.
    scripts_dir: str
    #: Only scripts in ``scripts_dir``.
    scripts_only: bool
    #: ``*``, names and absolute paths of programs, each with the wildcards of ``fnmatch``.
    allowed_commands: tuple[str, ...]
    base: BaseEnvironment = field(factory=BaseEnvironment)
    #: The variables that a job may set, or their first letters and ``*``; ``None``: each that is not refused anyway.
    allowed_env: tuple[str, ...] | None = None

    @property
    def restricted(self) -> bool:
        """Whether not everything may run."""
        return self.scripts_only or _EVERYTHING not in self.allowed_commands

    def environment_thd(self, job_id: str, spec: JobSpec, spool: Spool) -> dict[str, str]:
        """Make all variables of the job; ``NotRunnable`` for one that it may not set."""
        for name, value in spec.env.items():
            if problem := variable_problem(name, value, self.restricted) or unlisted_problem(name, self.allowed_env):
                raise NotRunnable(f"env {_shown(name)}: {problem}")
        return self.base.of_job_thd(job_id, spool, spec.env)

    def path_of(self, spec: JobSpec) -> str:
        """Answer the PATH on which the job's command is looked for.

        If anything is restricted it is the worker's: no restriction could rely on a PATH that the job sets.
        """
        return self.base.path if self.restricted else spec.env.get("PATH", self.base.path)

    def command_line_thd(self, spec: JobSpec, script: str | None) -> list[str]:
        """Make the command line of the job, with an absolute path as program. Raises ``NotRunnable`` if it can't run.

        ``script`` is the file to which ``spec.script`` is, or will be, written.
        """
        for name, value in (("command", spec.command), ("path", spec.path), ("cwd", spec.cwd)):
            _check_text(name, value)
        for value in spec.args:
            _check_text("args", value)
        if spec.script is not None:
            assert script is not None
            self._check_script(spec.script)
            return [script, *spec.args]
        if not spec.command:
            raise NotRunnable("command: must not be empty")
        program = _program(spec.command, self.path_of(spec))
        path = self._path(spec.path)
        self._check_allowed(spec, program, path)
        return [_guarded("command", program), *([path] if path else []), *spec.args]

    def _path(self, path: str) -> str:
        """Answer the absolute path of the job's script; ``""``: it has none."""
        if not path:
            if self.scripts_only:
                raise NotRunnable(
                    f"path: is needed, scripts_only is set; allowed is a script inside scripts_dir, {self.scripts_dir}"
                )
            return ""
        full = path
        inside = self.scripts_only or not os.path.isabs(path)
        if inside:
            root = os.path.realpath(self.scripts_dir)
            full = os.path.realpath(os.path.join(root, path))
            if os.path.commonpath([root, full]) != root:
                raise NotRunnable(
                    f"path {_shown(path)} leads out of scripts_dir, {self.scripts_dir}; allowed is a script inside it"
                )
        try:
            mode = os.stat(full).st_mode
        except OSError as error:
            where = "" if os.path.isabs(path) else f" in scripts_dir, {self.scripts_dir}"
            raise NotRunnable(f"path {_shown(path)} {_why(error)}{where}") from None
        if self.scripts_only and not stat.S_ISREG(mode):
            raise NotRunnable(f"path {_shown(path)} is not a file; scripts_only is set")
        if not (inside or self.restricted):
            _check_writers("path", full, "; a file that is only read can be one of args")
            return full
        return _guarded("path", os.path.join(self.scripts_dir, path))

    def _check_allowed(self, spec: JobSpec, program: str, path: str) -> None:
        allowing = [pattern for pattern in self.allowed_commands if self._allows(pattern, spec.command, program)]
        if not allowing:
            raise NotRunnable(
                f"command {_shown(spec.command)} is not allowed here; "
                f"allowed_commands has: {', '.join(self.allowed_commands) or 'nothing'}"
            )
        if self.scripts_only and set(allowing) == {_EVERYTHING} and not self._is_interpreter(program, path):
            raise NotRunnable(
                f"command {_shown(spec.command)} is not what the #! line of {_shown(spec.path)} names; "
                "scripts_only allows that, or a command that allowed_commands lists by its name"
            )

    def _allows(self, pattern: str, command: str, program: str) -> bool:
        if pattern == _EVERYTHING:
            return True
        if "/" in pattern:
            wanted, given = _place(pattern).split("/"), _place(program).split("/")
            return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))
        name = os.path.basename(command)
        if not fnmatchcase(name, pattern):
            return False
        found = program if name == command else _on_path(name, self.base.path)
        return found is not None and _place(found) == _place(program)

    def _is_interpreter(self, program: str, path: str) -> bool:
        """Whether ``program`` is the interpreter that the file at ``path`` names."""
        try:
            with open(path, "rb") as script:
                named = INTERPRETER.match(script.readline(LINE_MAX_BYTES))
        except OSError as error:
            raise NotRunnable(f"path {_shown(path)} {_why(error)}") from None
        if named is None:
            return False
        interpreter: str | None = os.fsdecode(named[1])
        if os.path.basename(named[1]) == b"env":
            words = [os.fsdecode(word) for word in named[2].split() if not word.startswith(b"-") and b"=" not in word]
            interpreter = _on_path(words[0], self.base.path) if words else None
        return interpreter is not None and _place(interpreter) == _place(program)

    def _check_script(self, script: bytes) -> None:
        if self.restricted:
            key = "scripts_only" if self.scripts_only else "allowed_commands"
            raise NotRunnable(f"script: is not allowed here, where {key} restricts what may run")
        if unfit := script_problem(script):
            raise NotRunnable(f"script: {unfit}")
        named = INTERPRETER.match(script[:LINE_MAX_BYTES])
        assert named is not None
        interpreter = os.fsdecode(named[1])
        problem = _program_problem(interpreter) if os.path.isabs(interpreter) else "is not an absolute path"
        if problem:
            raise NotRunnable(f"script: the interpreter {_shown(interpreter)} that its #! line names {problem}")


def _program(command: str, path: str) -> str:
    """Answer the absolute path of a command. A name is looked for on ``path``."""
    if os.path.isabs(command):
        if problem := _program_problem(command):
            raise NotRunnable(f"command {_shown(command)} {problem}")
        return command
    if "/" in command:
        raise NotRunnable(f"command {_shown(command)}: must be the name of a program on PATH or an absolute path")
    found = _on_path(command, path)
    if found is None:
        unfit = [place for place in _candidates(command, path) if os.path.isfile(place)]
        hint = f"; {unfit[0]} is not executable" if unfit else ""
        raise NotRunnable(f"command {_shown(command)} not found on PATH ({path}){hint}")
    return found


def _guarded(name: str, path: str) -> str:
    """Resolve a path that is checked by ``_check_writers``."""
    _check_writers(name, path)
    return os.path.realpath(path)


def _check_writers(name: str, path: str, hint: str = "") -> None:
    """Raise ``NotRunnable`` if another user than root and the worker's may write a path, or change where it leads."""
    uid = os.geteuid()
    try:
        problem = writers_problem(path, uid)
    except OSError as error:
        raise NotRunnable(f"{name} {_shown(path)} {_why(error)}") from None
    if problem:
        raise NotRunnable(
            f"{name} {_shown(path)} is not safe to run here: {problem}; "
            f"only root and the worker's user, {user(uid)}, may be able to write it and the folders above{hint}"
        )


def _on_path(name: str, path: str) -> str | None:
    return next((place for place in _candidates(name, path) if not _program_problem(place)), None)


def _candidates(name: str, path: str) -> Iterator[str]:
    """Go through the places where ``name`` may be. Relative folders on PATH are left out: the job would choose them."""
    return (os.path.join(folder, name) for folder in path.split(":") if os.path.isabs(folder))


def _place(path: str) -> str:
    """Resolve the folder of ``path``, and keep the name."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _program_problem(path: str) -> str:
    """Explain why the file at ``path`` is no program; ``""``: it is one."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return _why(error)
    if not stat.S_ISREG(mode):
        return "is a directory" if stat.S_ISDIR(mode) else "is not a file"
    if os.access(path, os.X_OK):
        return ""
    if mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH) and mounted_noexec(path):
        return "is on a file system that is mounted noexec"
    return "is not executable"


def mounted_noexec(path: str) -> bool:
    """Whether the file system of ``path`` is mounted noexec. Raises ``OSError`` if that can't be looked up."""
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "not found"
    return f"can't be used ({error.strerror})"


def _check_text(name: str, value: str) -> None:
    if problem := text_problem(value):
        raise NotRunnable(f"{name} {_shown(value)} {problem}")


def _shown(value: str) -> str:
    return repr(value if len(value) <= 200 else f"{value[:197]}...")
