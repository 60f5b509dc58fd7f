"""The job of the load: leaves evidence that it ran, prints what its seed says and exits as its seed says.

Run as ``python -I -S job.py FILE SEED LINES PAUSE [GOOD]``. It appends to ``FILE``,
each line in one write: before anything else ``run <job id> <pid> <ns>``, then ``in
<job id> <pid> <ns> <sha256>`` of all that it could read of its stdin, for each
SIGUSR1 that it gets ``usr1 <job id> <pid> <ns>``, and as the last thing ``end <job
id> <pid> <ns> <exit code>``. With ``GOOD`` the attempts of a job that is run again
when it fails do fail, up to the one of that number, whatever the seed says; the
attempts before it are those that have a line in the file. Times are those of the monotonic clock, which the
harness shares. From the time of ``end`` on, signals are not counted. Whoever ran it,
and how often, can be read there whatever scheduler and worker say. Standard library
only; imported by the checker for what the output must be.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time

#: Every line of output has so many bytes.
LINE = 64

#: There is a line of stderr for each so many lines of stdout.
ERROR_EVERY = 4

#: Of a job whose output could not be written.
BROKEN = 111

#: Bytes that a job takes from its stdin at a time.
_CHUNK = 65536


def line(seed: int, number: int) -> bytes:
    """A line of the output; no two are alike."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
    return f"{number:08d} {digest[: LINE - 10]}\n".encode()


def output(seed: int, lines: int) -> bytes:
    """All that the job prints if nobody ends it."""
    return b"".join(line(seed, number) for number in range(lines))


def error_line(seed: int, number: int) -> bytes:
    """A line of stderr, where the line of stdout with that number has one."""
    return line(~seed, number)


def error_output(seed: int, lines: int) -> bytes:
    """All that the job prints to stderr if nobody ends it."""
    return b"".join(error_line(seed, number) for number in range(0, lines, ERROR_EVERY))


def exit_code(seed: int) -> int:
    """0 of about half the seeds, 1 to 100 of the others."""
    first, second = hashlib.sha256(f"{seed}:exit".encode()).digest()[:2]
    return 0 if first % 2 else second % 100 + 1


def stdin(seed: int, size: int) -> bytes:
    """So many bytes that a job with that seed is given to read; any byte may be among them."""
    block = hashlib.sha512(f"{seed}:stdin".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def code_of_attempt(seed: int, attempt: int, good: int) -> int:
    """Of an attempt of a job that fails until the one with that number, from 1."""
    return 0 if attempt >= good else exit_code(seed) or 1


def attempt_of(file: str, job: str) -> int:
    """Which attempt of its ticket that job is, from 1, by what has run before."""
    with open(file, encoding="ascii") as evidence:
        ran = [words[1] for words in map(str.split, evidence) if words[0] == "run"]
    return list(dict.fromkeys(ran)).index(job) + 1


def main(file: str, seed: int, lines: int, pause: float, good: int = 0) -> int:
    """Be the job; the exit code."""
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
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # runs the handler for what came before
    os.write(evidence, f"end {me} {ended} {code}\n".encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), *map(int, sys.argv[5:])))
