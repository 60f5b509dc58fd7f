"""Notices that the folder of a running job was removed: the job is then lost, and holds no slot.

Theory of operation. A job runs on without its folder, but its shim can't write an exit record any more. The end of the
shim and a stop notice a missing folder; as both may be hours away, a periodic look at all running jobs catches the
rest. The end is kept in memory only, as there is no place for a record. The id is used up, so no start runs the job
again.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.daemon.services import Periodic
from scheduler.errors import ShuttingDown
from scheduler.threads import Pool
from scheduler.worker.endings import Endings
from scheduler.worker.jobs import Jobs
from scheduler.worker.life import JobLives

#: Seconds between two looks at the folders of all running jobs.
FOLDER_CHECK_INTERVAL_SECONDS = 5.0


class Removals(Periodic):
    """Looks for removed folders of running jobs. Called on the reactor thread."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, pool: Pool, endings: Endings, jobs: Jobs, lives: JobLives) -> None:
        super().__init__(clock, FOLDER_CHECK_INTERVAL_SECONDS, self._look_now)
        self._pool = pool
        self._endings = endings
        self._jobs = jobs
        self._lives = lives

    def _look_now(self) -> None:
        Deferred.fromCoroutine(self.look()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(ShuttingDown) is None:
            self._log.failure("folders of jobs can't be looked at", failure)

    async def look(self) -> None:
        """Look now, and end the jobs whose folder is gone."""
        for job_id in await self._pool.run(self._endings.removed_thd, self._jobs.running()):
            job = self._jobs.find(job_id)
            if job is not None and not job.ended:
                await self._lives.lose(job)
