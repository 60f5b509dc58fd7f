"""The clock steps by an hour, back and forth: leases, timeouts and jobs are not affected."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from tests.faults.daemons import Cluster
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")

#: The steps, as offsets from the true time.
STEPS = ("+3600", "-3600", "+0", "-3600", "+3600", "+0")

#: Seconds that a job with a timeout may take.
TIMEOUT = 3.0

#: Seconds by which the shim's time of the end may differ: far less than a step.
SAME_SECONDS = 600.0


class Experiment(Plan):
    number = 14
    name = "clock"
    rounds = 6
    quick_rounds = 2

    def possible(self) -> None:
        library()

    def go(self, run: Run) -> None:
        file = run.folder / "faketime"
        file.write_text("+0")
        run.use(Cluster(run.folder), Mix(unattended=0.0))  # the checker judges that by the wall clock
        cluster = run.cluster
        fake = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        fake["SCHEDULER_FAILPOINTS_PASS"] = " ".join(fake)  # shims get nothing else of the worker's environment
        cluster.scheduler.environment |= fake
        cluster.start(workers=0)
        for _ in range(2):
            worker = cluster.add_worker()
            worker.environment |= fake
            cluster.join(worker)
        cluster.wait_online()
        for number in run.rounds():
            self._round(run, file, STEPS[number % len(STEPS)], STEPS[(number - 1) % len(STEPS)])
        run.verdict()

    def _round(self, run: Run, file: Path, offset: str, before: str) -> None:
        api = run.cluster.api
        run.go_on(0.3, 0.6)
        began = time.monotonic()
        _, job = api.call(
            "POST",
            "/v1/jobs",
            {"worker": "w1", "command": "sleep", "args": ["600"], "timeout": TIMEOUT, "stop_grace": 1},
        )
        at = run.fault(f"the clock goes to {offset}")
        file.write_text(offset)
        while time.monotonic() < at + run.cluster.lease + 1:
            run.demand(run.cluster.online(), "E14", f"a worker is not online after a step to {offset}")
            time.sleep(0.3)
        ended = api.get(f"/v1/jobs/{job['id']}?wait=20")
        took = time.monotonic() - began
        run.demand(
            ended and ended["state"] == "timed_out", "E14", f"a job with a timeout is {ended and ended['state']}"
        )
        if ended and ended["finished_at"] and int(offset) > int(before):  # no job ends before it has started
            off = datetime.fromisoformat(ended["finished_at"]).timestamp() - time.time() - int(offset)
            run.demand(abs(off) < SAME_SECONDS, "E14", f"the shim's clock is {off:.0f} s from one at {offset}")
        run.demand(took >= TIMEOUT, "E14", f"a timeout of {TIMEOUT:g} s came after {took:.1f} s")
        run.within(took, 2 * TIMEOUT + 2, f"a timeout of {TIMEOUT:g} s", "E14")
        run.converge(run.heal("the clock stays"))


def library() -> Path:
    """The path of libfaketime; ``Skipped`` without it."""
    for pattern in LIBRARIES:
        for found in Path("/").glob(pattern.lstrip("/")):
            return found
    raise Skipped("libfaketime is not installed")
