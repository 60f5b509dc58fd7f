"""A backup of the database is restored.

Nothing that any side still knows is repeated or lost. Jobs of the workers are known again, with their ends. Jobs that
wait in the backup, and have run since, do not run again. Jobs that only the scheduler had accepted since the backup are
unknown: it is killed before the backup is restored.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.faults import history
from tests.faults.evidence import spool_folders
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run

#: Seconds of work that are missing in the backup.
MISSING = 10.0

#: Removals and stops that only the scheduler knew are forgotten with it, and so is a job's attendance.
MIX = Mix(rate=6.0, longest=3.0, removals=0.0, unattended=0.0, waiting=0.6, workers=("w1", "w2"))


class Experiment(Plan):
    number = 34
    name = "set-back"
    rounds = 10

    def go(self, run: Run) -> None:
        run.start(mix=MIX)
        for _ in run.rounds():
            self._restore(run)
        run.verdict()

    @staticmethod
    def _restore(run: Run) -> None:
        scheduler = run.cluster.scheduler
        (database,) = scheduler.state.glob("*.db")
        backup = run.folder / "backup.db"
        run.go_on(1.0, 2.0)
        source = f"file:{database}?mode=ro"
        with closing(sqlite3.connect(source, uri=True)) as live, closing(sqlite3.connect(backup)) as copy:
            live.backup(copy)
            known = {job for (job,) in copy.execute("SELECT id FROM jobs")}
        run.pause(1.0, run.lasting(MISSING, 2.0))
        run.fault("kill -9 scheduler")
        scheduler.kill()
        for file in scheduler.state.glob(f"{database.name}*"):
            file.unlink()
        backup.rename(database)
        there = _on_workers(run)
        run.set_back("the database is restored", _acknowledged(run) - known - there, there - known)
        run.converge(run.restart_scheduler())


def _acknowledged(run: Run) -> set[str]:
    return {event.job for event in history.read(run.history.path) if event.acknowledged and event.job}


def _on_workers(run: Run) -> set[str]:
    """Jobs with a folder on a worker."""
    return {folder.name for worker in run.cluster.workers for folder in spool_folders(worker.state)}
