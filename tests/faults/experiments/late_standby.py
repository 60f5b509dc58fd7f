"""PostgreSQL fails over to a standby that was behind, while the scheduler runs: it saves the missing records again."""

from __future__ import annotations

from tests import postgres
from tests.faults.daemons import Cluster
from tests.faults.experiments.full_store import recovered
from tests.faults.experiments.paused_postgres import own_server
from tests.faults.experiments.set_back import MISSING, MIX
from tests.faults.run import Plan, Run, Skipped


class Experiment(Plan):
    number = 35
    name = "late-standby"
    rounds = 6

    def possible(self) -> None:
        if why := postgres.why_not():
            raise Skipped(why)

    def go(self, run: Run) -> None:
        with own_server(fsync="on") as database:
            run.use(Cluster(run.folder, more=f'[store]\nurl = "{database.url()}"\n'), MIX)
            run.cluster.start(workers=2)
            for number in run.rounds():
                self._round(run, database, killed=number % 2 == 1)
            run.verdict()
            run.end()

    @staticmethod
    def _round(run: Run, database: postgres.Server, killed: bool) -> None:
        run.go_on(0.5, 1.5)
        run.fault("PostgreSQL is copied")
        database.kill()
        database.copy()
        database.start()
        run.heal("PostgreSQL answers")
        run.pause(1.0, run.lasting(MISSING, 3.0))
        run.set_back("a standby that was behind takes over")
        database.kill()
        database.put_back()
        database.start()
        healed = run.heal("the standby answers")
        recovered(run, "E35", healed)
        if killed:  # everything is saved, so the scheduler's end loses nothing
            run.fault("kill -9 scheduler")
            run.cluster.scheduler.kill()
            run.converge(run.restart_scheduler())
