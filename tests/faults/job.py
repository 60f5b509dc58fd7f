"""The job of the load: leaves evidence that it ran, prints what its seed says and exits as its seed says.

Run as ``python -I -S job.py FILE SEED LINES PAUSE``. It appends to ``FILE``,
each line in one write: before anything else ``run <job id> <pid> <ns>``, for each
SIGUSR1 that it gets ``usr1 <job id> <pid> <ns>``, and as the last thing ``end <job
id> <pid> <ns> <exit code>``. Times are those of the monotonic clock, which the
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


def main(file: str, seed: int, lines: int, pause: float) -> int:
    """Be the job; the exit code."""
    me = f"{os.environ['SCHEDULER_JOB_ID']} {os.getpid()}"
    evidence = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write_down(what: str, *more: object) -> None:
        os.write(evidence, f"{' '.join([what, me, str(time.monotonic_ns()), *map(str, more)])}\n".encode())

    signal.signal(signal.SIGUSR1, lambda *_: write_down("usr1"))
    write_down("run")
    code = exit_code(seed)
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
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
