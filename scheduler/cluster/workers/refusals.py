"""The log of reports that were refused; each is logged once.

A worker repeats a refused report until it is acknowledged, but not in every heartbeat. So a heartbeat without the
report does not mean that it is over, and when it comes again it is not logged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.logger import Logger

#: Refused reports of one worker that are remembered. Further ones are not logged until the worker is a new process.
REMEMBERED_MAX = 5_000


class Refusals:
    """Remembers what was refused and logged; there is one for each scheduler."""

    _log = Logger()

    def __init__(self) -> None:
        #: worker id -> what was refused and logged, in order: ids of jobs, or fields of heartbeats.
        self._logged: dict[str, dict[str, None]] = {}

    def note(self, worker_id: str, refused: Mapping[str, str], taken: Iterable[str]) -> None:
        """Log new refusals of a heartbeat; ``refused``: job id or field -> why; ``taken``: ids of the changed jobs."""
        logged = self._logged.get(worker_id, {})
        for job_id in taken:
            logged.pop(job_id, None)
        news = [what for what in refused if what not in logged][: max(REMEMBERED_MAX - len(logged), 0)]
        if not news:
            return
        self._logged[worker_id] = logged | dict.fromkeys(news)
        self._log.warn(
            "worker {worker_id} reports what is not taken: {count} in all, new is {what}: {why}",
            worker_id=worker_id,
            count=len(refused),
            what=news[0],
            why=refused[news[0]],
        )

    def forget(self, worker_id: str) -> None:
        """Forget a worker that is a new process, or gone."""
        self._logged.pop(worker_id, None)
