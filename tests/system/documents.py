"""Runs the commands that README and docs tell their readers to type.

A fenced block is run according to its language:

- ``console``: a session in a terminal. A line that begins with ``$ `` is a command, and lines that begin with ``> ``
  continue it. The following lines are its output, stdout and stderr together. They are compared with the real output,
  except for ids, times, durations and the width of columns; ``...`` stands for anything. The commands of all sessions
  of a document run in one shell, so variables stay set.
- ``python``: a script, which must succeed.
- ``sh``, or no language: commands of a shell, each of which must succeed and print no problem document. Variables last
  to the end of the block.
- ``bash``: a program, which must succeed; it may have arguments.

``text``, ``json``, ``toml`` and ``mermaid`` are not run, nor is ``nginx``, which ``test_nginx`` uses. Another language
is refused.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

#: Seconds that a command, or a script, may take.
WAIT_MAX_SECONDS = 60.0

RUN = ("console", "python", "bash", "sh", "")
NOT_RUN = ("text", "json", "toml", "mermaid", "nginx")

_FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

#: Patterns for text that differs between runs, and their replacements for the comparison. The order matters.
_VARIABLE = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\b(?=[0-9]*[a-f])[0-9a-f]{8}\b|\b[0-9]{8}\b", "<short-id>"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d|Z)?", "<time>"),
    (r"\b(\d+d )?(\d+h )?(\d+m )?\d+(\.\d+)? ?m?s\b|\b\d+[dhm]( \d+[hm])?\b", "<duration>"),
    (r"\b\d+(\.\d+)? (B|[kMGT]i?B)\b", "<size>"),
    (r'("(max_rss|cpu_seconds)": ?)[0-9.]+', r"\1<number>"),
    (r"[ \t]+", " "),
)


#: Commands that are never run, even if they are not in ``not_run``.
CHANGES_MACHINE = re.compile(r"\b(useradd|systemctl|sysctl|reboot)\b|^(install|cp|mv|rm)\b.* /(etc|opt|usr|var)\b")


class Differs(AssertionError):
    """A document differs from the real behaviour."""


@frozen
class Block:
    """A block of code of a document."""

    language: str
    text: str
    #: The number of its first line in the document.
    line: int


@frozen
class Command:
    """A command of a session, with the output shown below it."""

    text: str
    output: str


def blocks(document: str) -> list[Block]:
    """All blocks of a document, in order."""
    return [
        Block(
            found[2],
            re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE),
            document.count("\n", 0, found.start()) + 2,
        )
        for found in _FENCE.finditer(document)
    ]


def session(block: Block) -> list[Command]:
    """The commands of a ``console`` block."""
    commands: list[list[list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append([[line[2:]], []])
        elif not commands:
            raise Differs(f"line {block.line}: a console block begins with a command: $ ...")
        elif line.startswith("> ") and not commands[-1][1]:
            commands[-1][0].append(line[2:])
        else:
            commands[-1][1].append(line)
    return [Command("\n".join(text), "\n".join(output)) for text, output in commands]


def shell_commands(block: Block) -> list[str]:
    """The commands of a shell script in their original form, without comments."""
    found: list[str] = []
    waiting: list[str] = []
    for line in block.text.splitlines():
        if not waiting and (not line.strip() or line.lstrip().startswith("#")):
            continue
        waiting.append(line)
        command = "\n".join(waiting)
        checked = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
        if not checked.returncode and not checked.stderr and not command.endswith("\\"):
            found.append(command)
            waiting = []
    if waiting:
        raise Differs(f"line {block.line}: no whole command: {waiting[0]}")
    return found


def normal(text: str) -> str:
    """``text`` without the parts that differ between runs."""
    for pattern, replacement in _VARIABLE:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def matches(shown: str, printed: str) -> bool:
    """Whether a document may show ``shown`` for the real output ``printed``."""
    pattern = ".*".join(re.escape(part) for part in re.split(r"\.\.\.", normal(shown)))
    return re.fullmatch(pattern, normal(printed), re.DOTALL) is not None


class Shell:
    """A bash that runs commands one after the other, like a terminal, without input."""

    def __init__(self, cwd: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environ,
            start_new_session=True,
        )
        self._number = 0
        self._code = 0

    def run(self, command: str) -> str:
        """The output of a command, on either stream."""
        self._number += 1
        mark = f"--- command {self._number} is over: "
        assert self._process.stdin is not None
        # `$?` is that of the previous command, as in a terminal.
        script = f"(exit {self._code})\n{{ {command}\n}} </dev/null 2>&1\nprintf '%s%s\\n' '{mark}' $?\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        text, self._code = self._read_until(re.compile(re.escape(mark).encode() + rb"(\d+)\n"), command)
        return text

    def _read_until(self, mark: re.Pattern[bytes], command: str) -> tuple[str, int]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + WAIT_MAX_SECONDS
        printed = b""
        while (found := mark.search(printed)) is None:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                why = "ended the shell" if ready else f"did not end within {WAIT_MAX_SECONDS:g} s"
                raise Differs(f"{command}\n{why}:\n{printed.decode(errors='replace')}")
            printed += data
        return printed[: found.start()].decode(errors="replace"), int(found[1])

    def close(self) -> None:
        """End the shell, with all its background processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


class Reader:
    """A reader who types every command of a document."""

    def __init__(
        self,
        name: str,
        document: str,
        cwd: Path,
        environ: Mapping[str, str],
        replaced: Mapping[str, str],
        not_run: Mapping[str, str],
        exit_codes: Mapping[str, int],
        arguments: Sequence[str] = (),
    ) -> None:
        """``name`` of the document, for messages.

        ``replaced``: text in the document, such as ``localhost:3000``, and the text to type in its place. ``not_run``:
        commands that are left out. ``exit_codes``: those of scripts that fail, each by its first command.
        ``arguments``: those of ``bash`` programs.
        """
        self._name = name
        self._blocks = blocks(document)
        self._cwd = cwd
        self._environ = environ
        self._replaced = replaced
        self._not_run = not_run
        self._exit_codes = exit_codes
        self._arguments = arguments
        #: The commands of ``not_run`` that the document contains.
        self.left_out: set[str] = set()

    def read(self) -> Iterator[str]:
        """Type everything; a text for each difference."""
        shell = Shell(self._cwd, self._environ)
        try:
            for block in self._blocks:
                try:
                    if block.language == "console":
                        yield from self._session(block, shell)
                    elif block.language == "python":
                        self._script(block, ["python", "-c", self._typed(block.text)], 0)
                    elif block.language == "bash":
                        self._script(block, ["bash", "-c", self._typed(block.text), "bash", *self._arguments], 0)
                    elif block.language in RUN:
                        self._shell_script(block)
                    elif block.language not in NOT_RUN:
                        raise Differs(f"{block.language!r} is none of {', '.join((*RUN, *NOT_RUN))}")
                except Differs as error:
                    yield f"{self._name}:{block.line}: {error}"
        finally:
            shell.close()

    def _session(self, block: Block, shell: Shell) -> Iterator[str]:
        for command in session(block):
            if self._is_left_out(command.text):
                continue
            printed = self._shown(shell.run(self._typed(command.text)))
            if not matches(command.output, printed):
                yield (
                    f"{self._name}:{block.line}: $ {command.text}\nis shown to print\n{command.output}\n"
                    f"and printed\n{printed}"
                )

    def _shell_script(self, block: Block) -> None:
        commands = [command for command in shell_commands(block) if not self._is_left_out(command)]
        if commands:
            code = self._exit_codes.get(commands[0], 0)
            self._script(block, ["bash", "-e", "-o", "pipefail", "-c", self._typed("\n".join(commands))], code)

    def _script(self, block: Block, command: list[str], code: int) -> None:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._cwd,
            env=self._environ,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=WAIT_MAX_SECONDS)
        except subprocess.TimeoutExpired:
            raise Differs(f"not within {WAIT_MAX_SECONDS:g} s:\n{block.text}") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode != code or (code == 0 and '"/problems/' in printed):
            raise Differs(f"exit code {process.returncode}, not {code}:\n{block.text}printed\n{printed}")

    def _is_left_out(self, command: str) -> bool:
        """Whether the command is left out; its comment does not count."""
        key = re.sub(r"\s+# .*", "", command)
        if key not in self._not_run:
            if CHANGES_MACHINE.search(key):
                raise Differs(f"it changes this machine, so say why it is not run: {key}")
            return False
        self.left_out.add(key)
        return True

    def _typed(self, text: str) -> str:
        for what, other in self._replaced.items():
            text = text.replace(what, other)
        return text

    def _shown(self, text: str) -> str:
        for what, other in self._replaced.items():
            text = text.replace(other, what)
        return text
