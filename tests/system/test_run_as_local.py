"""``schedctl run`` compared with the same command run locally: byte for byte, code for code, in spite of faults.

Hypothesis makes the scripts: random bytes on both streams, naps, input, exit codes and signals. Each runs locally, and
by ``schedctl`` through a proxy that cuts its connections at random bytes. In some cases the scheduler is killed and
started again, once the job has reached a random place, or while a request is in progress. ``HYPOTHESIS_EXAMPLES`` is
the number of cases; ``make compare`` tries 200.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scheduler.client import Client
from tests.proxy import CuttingProxy
from tests.system.conftest import BIN, Daemon, wait_until

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "20"))

#: Seconds that one run by ``schedctl`` may take.
WAIT_MAX_SECONDS = 60.0

#: The exit code of ``schedctl`` if the same command can be repeated.
NOTHING_STARTED = 125

#: The messages of ``schedctl`` itself on stderr while it waits for the scheduler or a worker.
_NOTES = re.compile(rb"schedctl: [^\n]*\n")

#: Signals that a script sends to itself: those that end it, two that are ignored, and one that a shell may catch.
SIGNALS = ("TERM", "KILL", "INT", "HUP", "PIPE", "ALRM", "USR1", "USR2", "QUIT", "ABRT", "SEGV", "CHLD", "WINCH")

#: Bytes of a piece of output: many small ones, and some that do not fit into a pipe, a request or a page.
SIZES = st.one_of(st.integers(0, 300), st.integers(0, 70_000), st.integers(0, 1_500_000))


@frozen
class Case:
    """A script, and the faults of its connections."""

    script: str
    stdin: bytes
    #: The places of cuts in the first connections, as shares of an uncut one's bytes. Later connections are not cut.
    cuts: list[float]
    #: The number of the connection, from 1, at which the scheduler is killed; 0: none.
    kill_at: int


def _write(stream: int, seed: int, size: int) -> str:
    """Code that writes so many random bytes, including NUL and invalid UTF-8."""
    program = f"import sys,random; sys.stdout.buffer.write(random.Random({seed}).randbytes({size}))"
    return f'"$PYTHON" -S -c {shlex.quote(program)} >&{stream}'


def _print(stream: int, data: bytes) -> str:
    """Code that writes these bytes by the shell alone."""
    return f"printf {shlex.quote(''.join(f'{chr(92)}{byte:03o}' for byte in data))} >&{stream}"


STREAMS = st.sampled_from((1, 2))
STEPS = st.one_of(
    st.builds(_write, STREAMS, st.integers(0, 2**32), SIZES),
    st.builds(_print, STREAMS, st.binary(min_size=1, max_size=40)),
    st.builds(
        lambda first, second: f"{{ {first} & {second}; wait; }}",
        *[st.builds(_write, st.just(stream), st.integers(0, 2**32), SIZES) for stream in (1, 2)],
    ),
    st.builds(lambda nap: f"sleep {nap:.2f}", st.floats(0, 0.3)),
    st.builds(lambda stream, size: f"head -c {size} >&{stream}", STREAMS, st.integers(0, 200_000)),
    st.builds(lambda stream: f"cat >&{stream}", STREAMS),
)
ENDS = st.one_of(
    st.integers(0, 255).map(lambda code: f"exit {code}"),
    st.sampled_from(SIGNALS).map(lambda name: f"kill -{name} $$; exit 7"),
    st.sampled_from(("true", "false", "exec sleep 0", "exec /nonesuch", ". /nonesuch", "if")),
)

INPUT = st.one_of(st.just(b""), st.binary(max_size=300), st.integers(0, 70_000).map(lambda n: b"\x00\xff\n" * n))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A script of some steps and an end; in one of four cases the scheduler is killed."""
    steps = draw(st.lists(STEPS, max_size=6))
    # Hypothesis likes to repeat itself, but the faults are to differ in each case.
    chance = draw(st.randoms(use_true_random=True))
    kill = chance.choice(("in the job", "at a request", *[""] * 6))
    if kill == "in the job":
        steps.insert(chance.randint(0, len(steps)), ': >"$MARK"')
    return Case(
        "\n".join(["ulimit -c 0", *steps, draw(ENDS)]),
        draw(INPUT),
        [chance.random() ** 2 for _ in range(chance.randint(0, 5))],
        chance.randint(1, 3) if kill == "at a request" else 0,
    )


class Lab:
    """A scheduler with a worker, a proxy before it, and two ways to run a script."""

    def __init__(self, scheduler: Daemon, folder: Path) -> None:
        self._scheduler = scheduler
        self._mark = folder / "mark"
        self._home = folder / "home"
        self._home.mkdir()
        self._cuts: Iterator[int] = iter(())
        #: Connections until the scheduler is killed.
        self._until_kill = 0
        host, port = scheduler.endpoints["http"].split(":")
        self.proxy = CuttingProxy(lambda: (host, int(port)), self._limit)
        #: The number of the present case.
        self.case = 0
        #: The number of kills, and of starts that were not made because of a kill.
        self.killed = 0
        self.repeated = 0

    def _limit(self) -> int | None:
        """The proxy's limit for a new connection."""
        self._until_kill -= 1
        if self._until_kill == 0:
            self._mark.touch()
        return next(self._cuts, None)

    @property
    def _variables(self) -> dict[str, str]:
        return {"MARK": str(self._mark), "PYTHON": sys.executable}

    def local(self, case: Case) -> tuple[int, bytes, bytes]:
        """The exit code (as in a shell), stdout and stderr of the script run locally."""
        done = subprocess.run(
            ["sh", "-c", case.script],
            input=case.stdin,
            capture_output=True,
            env={"PATH": os.environ["PATH"], **self._variables},
            check=False,
            timeout=WAIT_MAX_SECONDS,
        )
        self._mark.unlink(missing_ok=True)
        return done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr

    def remote(self, case: Case, written: int) -> tuple[int, bytes, bytes]:
        """The same by ``schedctl run``, for a script that writes so many bytes; stderr includes schedctl's messages."""
        carried = 4000 + (len(case.script) + len(case.stdin) + written) * 4 // 3  # as base64, with some JSON around it
        self._cuts, self._until_kill = (1 + int(cut * carried) for cut in case.cuts), case.kill_at
        variables = [f"--env={name}={value}" for name, value in self._variables.items()]
        process = subprocess.Popen(
            [BIN / "schedctl", "run", f"--label=case={self.case}", *variables, "--", "sh", "-c", case.script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "SCHEDULER_URL": self.proxy.url, "HOME": str(self._home)},
        )
        with ThreadPoolExecutor(1) as reader:
            result = reader.submit(process.communicate, case.stdin, WAIT_MAX_SECONDS)
            try:
                while not result.done():
                    if self._mark.exists():
                        self._mark.unlink()
                        self._scheduler.crash()
                        self.killed += 1
                    time.sleep(0.005)
                stdout, stderr = result.result()
            finally:
                process.kill()
        self._mark.unlink(missing_ok=True)
        return process.returncode, stdout, stderr

    def compare(self, case: Case) -> None:
        """Run both ways and compare, and make sure that the job ran once."""
        self.case += 1
        here = self.local(case)
        written = len(here[1]) + len(here[2])
        there = self.remote(case, written)
        if case.kill_at and there[0] == NOTHING_STARTED != here[0]:
            assert self._starts() == 0, shown(there)
            self.repeated += 1
            there = self.remote(evolve(case, kill_at=0), written)  # the help says that it may be repeated
        code, stdout, stderr = there
        assert (code, stdout, _NOTES.sub(b"", stderr)) == here, f"here:  {shown(here)}\nthere: {shown(there)}"
        assert self._starts() == 1

    def _starts(self) -> int:
        """The number of started jobs of this case."""
        with Client(f"http://{self._scheduler.endpoints['http']}") as client:
            return sum(job.started_at is not None for job in client.jobs(label={"case": str(self.case)}))


@pytest.fixture
def lab(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> Iterator[Lab]:
    scheduler, _ = cluster
    with Client(f"http://{scheduler.endpoints['http']}") as client:
        wait_until(lambda: [worker.state for worker in client.workers()] == ["online"], "w1 is online")
    made = Lab(scheduler, tmp_path)
    with made.proxy:
        yield made


def shown(result: tuple[int, bytes, bytes]) -> str:
    """A shortened, readable form."""
    code, stdout, stderr = result
    return f"code {code}, stdout {len(stdout)} {stdout[:200]!r}, stderr {len(stderr)} {stderr[:200]!r}"


def test_as_local(lab: Lab) -> None:
    """Exit code, stdout and stderr are those of the same command run locally."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        # A failure depends on the time of a fault, so a smaller example would fail for another reason.
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def compare(case: Case) -> None:
        lab.compare(case)

    began = time.monotonic()
    compare()
    took = time.monotonic() - began
    sys.stdout.write(
        f"{lab.case} cases in {took:.0f} s: {lab.proxy.cuts} connections cut, scheduler killed {lab.killed} times, "
        f"{lab.repeated} commands repeated as nothing was started\n"
    )
