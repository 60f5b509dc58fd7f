"""``schedctl run`` and the same command run here, over connections that break and a scheduler that is killed."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import threading
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.proxy import CuttingProxy
from tests.system.conftest import Daemon
from tests.system.schedctl import User, finish

#: Random commands, and of how many the scheduler is killed once.
CASES, KILLED_EVERY = 200, 25

#: Bytes of both directions after which a connection is cut: some end within the first request, most within the output.
SHORTEST_CUT, LONGEST_CUT = 1, 4000


def octal(data: bytes) -> str:
    """As ``printf`` of any shell reads it."""
    return "".join(f"\\{byte:03o}" for byte in data)


def write(stream: int, data: bytes) -> str:
    return f"printf '{octal(data)}' >&{stream}"


def fill(stream: int, size: int) -> str:
    return f"head -c {size} /dev/zero | tr '\\000' '\\3{stream}7' >&{stream}"


STREAMS = st.sampled_from([1, 2])
STEPS = st.one_of(
    st.builds(write, STREAMS, st.binary(max_size=200)),
    st.builds(fill, STREAMS, st.integers(1, 20_000)),
    st.just("sleep 0.02"),
)
ENDS = st.one_of(
    st.integers(0, 255).map(lambda code: f"exit {code}"),
    st.sampled_from(["TERM", "KILL", "SEGV", "HUP", "USR1"]).map(lambda name: f"kill -{name} $$"),
)
LINES = st.builds(lambda steps, end: "; ".join([*steps, end]), st.lists(STEPS, max_size=8), ENDS)


def test_as_if_it_ran_here(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """Streams and code are those of the local run, though connections are cut and the scheduler is killed."""
    scheduler, _ = cluster
    User(scheduler, tmp_path).online()
    host, _, port = scheduler.endpoints["http"].partition(":")
    count = itertools.count(1)
    source = random.Random()

    def limit() -> int | None:
        return source.choice([None, source.randint(SHORTEST_CUT, LONGEST_CUT), source.randint(500, LONGEST_CUT)])

    with CuttingProxy(lambda: (host, int(port)), limit) as proxy:
        user = User(scheduler, tmp_path, proxy.url)

        @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(LINES, st.integers())
        def check(line: str, seed: int) -> None:
            source.seed(seed)
            here = subprocess.run(["sh", "-c", line], check=False, capture_output=True, stdin=subprocess.DEVNULL)
            process = user.start("run", "sh", "-c", line)
            if next(count) % KILLED_EVERY == 0:
                killer = threading.Timer(source.uniform(0.1, 0.5), scheduler.kill, (signal.SIGKILL,))
                killer.start()
                killer.join()
                scheduler.start()
            code, out, err = finish(process)
            expected = here.returncode if here.returncode >= 0 else 128 - here.returncode
            assert (code, out, err) == (expected, here.stdout, here.stderr), line

        check()
        assert proxy.cuts > CASES / 4
