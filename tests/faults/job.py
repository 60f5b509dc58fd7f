"""The job of the load: leaves evidence that it ran, prints what its seed says and exits as its seed says.

Run as ``python -I -S job.py FILE SEED LINES PAUSE``. It appends to ``FILE``,
each line in one write: before anything else ``run <job id> <pid> <ns since the
machine's start>``, and as the last thing ``end <job id> <pid> <exit code>``.
Whoever ran it, and how often, can be read there whatever scheduler and worker
say. Standard library only; imported by the checker for what the output must be.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time

#: Every line of output has so many bytes.
LINE = 64

#: Of a job whose output could not be written.
BROKEN = 111


def line(seed: int, number: int) -> bytes:
    """A line of the output; no two are alike."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
    return f"{number:08d} {digest[: LINE - 10]}\n".encode()


def output(seed: int, lines: int) -> bytes:
    """All that the job prints if nobody ends it."""
    return b"".join(line(seed, number) for number in range(lines))


def exit_code(seed: int) -> int:
    """0 of about half the seeds, 1 to 100 of the others."""
    first, second = hashlib.sha256(f"{seed}:exit".encode()).digest()[:2]
    return 0 if first % 2 else second % 100 + 1


def main(file: str, seed: int, lines: int, pause: float) -> int:
    """Be the job; the exit code."""
    me = f"{os.environ['SCHEDULER_JOB_ID']} {os.getpid()}"
    evidence = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(evidence, f"run {me} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n".encode())
    code = exit_code(seed)
    try:
        for number in range(lines):
            os.write(1, line(seed, number))
            time.sleep(pause)
    except OSError:
        code = BROKEN
    os.write(evidence, f"end {me} {code}\n".encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
