"""The job of the load: records that it ran, and prints and exits as its seed says.

Run as ``python -I -S job.py FILE SEED LINES PAUSE [GOOD]``. It appends to ``FILE``, each line in one write. First it
writes ``run <job id> <pid> <ns>``. Then it writes ``in <job id> <pid> <ns> <sha256>`` for everything that it could read
of its stdin, and ``usr1 <job id> <pid> <ns>`` for each SIGUSR1. Last it writes ``end <job id> <pid> <ns> <exit code>``.
From the time of ``end`` on, signals are not counted. Times are those of the monotonic clock, which the harness shares.
So the file shows every run, independently of scheduler and worker.

With ``GOOD`` the attempts of a job with retry fail before the one of that number, whatever the seed says. Earlier
attempts are those with a line in the file.

Standard library only. The checker imports it for the expected output.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time

#: The bytes of every line of output.
LINE = 64

#: The number of stdout lines for each line of stderr.
ERROR_EVERY = 4

#: The exit code of a job whose output could not be written.
BROKEN = 111

#: Bytes that a job reads from its stdin at once.
_CHUNK = 65536


def line(seed: int, number: int) -> bytes:
    """A line of the output; all lines differ."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
    return f"{number:08d} {digest[: LINE - 10]}\n".encode()


def output(seed: int, lines: int) -> bytes:
    """The complete stdout of a job that is not ended early."""
    return b"".join(line(seed, number) for number in range(lines))


def error_line(seed: int, number: int) -> bytes:
    """A line of stderr; not every line of stdout has one."""
    return line(~seed, number)


def error_output(seed: int, lines: int) -> bytes:
    """The complete stderr of a job that is not ended early."""
    return b"".join(error_line(seed, number) for number in range(0, lines, ERROR_EVERY))


def exit_code(seed: int) -> int:
    """0 for about half of the seeds, 1 to 100 for the others."""
    first, second = hashlib.sha256(f"{seed}:exit".encode()).digest()[:2]
    return 0 if first % 2 else second % 100 + 1


def stdin(seed: int, size: int) -> bytes:
    """The stdin for a job with that seed; it may contain any byte."""
    block = hashlib.sha512(f"{seed}:stdin".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def code_of_attempt(seed: int, attempt: int, good: int) -> int:
    """The exit code of an attempt, if the job fails before attempt ``good`` (from 1)."""
    return 0 if attempt >= good else exit_code(seed) or 1


def attempt_of(file: str, job: str) -> int:
    """The number of this attempt of its ticket, from 1, judged by earlier runs."""
    with open(file, encoding="ascii") as evidence:
        ran = [words[1] for words in map(str.split, evidence) if words[0] == "run"]
    return list(dict.fromkeys(ran)).index(job) + 1


def main(file: str, seed: int, lines: int, pause: float, good: int = 0) -> int:
    """Run the job, and return its exit code."""
    me = f"{os.environ['SCHEDULER_JOB_ID']} {os.getpid()}"
    evidence = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write_down(what: str, *more: object) -> None:
        os.write(evidence, f"{' '.join([what, me, str(time.monotonic_ns()), *map(str, more)])}\n".encode())

    signal.signal(signal.SIGUSR1, lambda *_: write_down("usr1"))
    write_down("run")
    digest = hashlib.sha256()
    while data := os.read(0, _CHUNK):
        digest.update(data)
    write_down("in", digest.hexdigest())
    code = exit_code(seed)
    if good:
        code = code_of_attempt(seed, attempt_of(file, os.environ["SCHEDULER_JOB_ID"]), good)
    try:
        for number in range(lines):
            if number % ERROR_EVERY == 0:
                os.write(2, error_line(seed, number))
            os.write(1, line(seed, number))
            time.sleep(pause)
    except OSError:
        code = BROKEN
    ended = time.monotonic_ns()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # runs the handler for signals that came before
    os.write(evidence, f"end {me} {ended} {code}\n".encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), *map(int, sys.argv[5:])))
