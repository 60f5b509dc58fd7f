"""The PostgreSQL server with the jobs is killed under load, and comes back at once or later.

Jobs continue, starts are refused meanwhile, and nothing acknowledged is lost. In every third round the scheduler is
killed when the database is back, before it can have noticed.
"""

from __future__ import annotations

from tests import postgres
from tests.faults.daemons import Cluster
from tests.faults.experiments.full_store import degraded, recovered
from tests.faults.experiments.paused_postgres import own_server
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run, Skipped


class Experiment(Plan):
    number = 28
    name = "kill-postgres"
    rounds = 12

    def possible(self) -> None:
        if why := postgres.why_not():
            raise Skipped(why)

    def go(self, run: Run) -> None:
        with own_server(fsync="on") as database:
            run.use(Cluster(run.folder, more=f'[store]\nurl = "{database.url()}"\n'), Mix(rate=8.0))
            run.cluster.start(workers=2)
            for number in run.rounds():
                self._round(run, database, number)
            run.verdict()
            run.end()

    def _round(self, run: Run, database: postgres.Server, number: int) -> None:
        run.go_on(0.5, 1.5)
        run.fault("kill of PostgreSQL")
        database.kill()
        if number % 3 == 1:
            degraded(run, "E28", run.lasting(10, 3))
        database.start()
        healed = run.heal("PostgreSQL answers")
        if number % 3 == 2:
            run.fault("kill -9 scheduler")
            run.cluster.scheduler.kill()
            healed = run.restart_scheduler()
        recovered(run, "E28", healed)
