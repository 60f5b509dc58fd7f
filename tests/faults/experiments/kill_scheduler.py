"""kill -9 of the scheduler, at any moment, under load."""

from __future__ import annotations

import sqlite3

from tests.faults.daemons import Daemon
from tests.faults.run import Plan, Run

#: Seconds from the start of the process until it serves.
SERVING = 5.0


class Experiment(Plan):
    number = 1
    name = "kill-scheduler"
    rounds = 60
    quick_rounds = 2

    def go(self, run: Run) -> None:
        run.start()
        for _ in run.rounds():
            run.go_on(0.3, 1.5)
            run.fault("kill -9 scheduler")
            run.cluster.scheduler.kill()
            run.pause(0.0, 0.3)
            healed = run.restart_scheduler()
            run.within(run.figures.serving[-1], SERVING, "serving again", "E1")
            run.pause(0.0, 0.5)
            run.converge(healed)
        run.verdict()
        intact(run, run.cluster.scheduler)


def intact(run: Run, scheduler: Daemon) -> None:
    """Check a scheduler's database, once the scheduler has ended, by SQLite's integrity check."""
    for file in scheduler.state.glob("*.db"):
        scheduler.kill()
        database = sqlite3.connect(file)
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
        database.close()
        run.demand(found == "ok", "E1", f"{file.name}: {found}")
