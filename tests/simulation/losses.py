"""The effect of a lost folder, or of a database that is set back, on the facts of a run: facts that no side can know.

Jobs that a worker still knows must come back: that is judged when the faults are over, and until then the scheduler may
not know them. Facts that no database and no worker has any more were known only to clients, and are removed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from scheduler.interfaces import Loaded
from scheduler.model import Job
from tests.simulation.machine import Folder

if TYPE_CHECKING:
    from tests.simulation.facts import Facts

#: The reason why the fate of a job is open.
COPY_TAKEN = "a copy of its folder was taken for its worker"
NOBODY_KNOWS = "its folder is lost, and the database was set back"


def folder_lost(facts: Facts, folder: Folder) -> None:
    """A folder is gone, with all its jobs."""
    folder.lost = True
    for worker_id, other in facts.owners.items():
        if other is folder:
            facts.forgotten[worker_id] = None
    for job_id in folder.spools:
        if job_id in facts.set_back:
            facts.excused[job_id] = NOBODY_KNOWS
            if facts.is_untold(job_id):
                facts.erased[job_id] = None
                _forget_promise(facts, job_id)


def folder_taken(facts: Facts, folder: Folder) -> None:
    """A copy was used unchanged while its worker did not answer, and was taken for it: no promise covers that."""
    for job_id in folder.spools:
        facts.excused[job_id] = COPY_TAKEN


def job_of_copy(facts: Facts, copy: Folder, job_id: str) -> None:
    """A job begins. The original worker does not know it if it began on a copy that was taken for that worker."""
    if job_id in copy.spools:
        facts.excused[job_id] = COPY_TAKEN


def set_back(facts: Facts, database: Loaded) -> None:
    """The database was set back to this state; no running scheduler knows more."""
    jobs = {job.id: job for job in database.jobs}
    spools = {job_id for node in facts.world.workers.values() for job_id in node.folder.spools}
    removed = {each.job_id for each in database.removed}
    undone = {job_id for job_id in facts.removed if job_id not in removed}
    changed = [job_id for job_id, shown in facts.shown.items() if jobs.get(job_id) != shown or job_id in undone]
    for job_id in changed:
        facts.set_back[job_id] = None
        shown = facts.shown[job_id]
        if shown.terms.unattended_timeout is not None or facts.stop_was_asked(shown):  # its worker may have been told
            facts.stops[job_id] = None
        if job_id not in jobs and job_id not in spools:
            facts.erased[job_id] = None
        if job_id in facts.runs and job_id not in spools:
            facts.excused[job_id] = NOBODY_KNOWS
    _forget_promises(facts, jobs, spools)
    _forget_answers(facts, changed)
    for job_id in undone:
        del facts.removed[job_id]
    for job_id in changed:
        del facts.shown[job_id]
    draining = {worker.id for worker in database.workers if worker.draining}
    facts.drained = {worker_id: name for worker_id, name in facts.drained.items() if worker_id in draining}
    facts.set_back_at = facts.world.loop.now


def _forget_promises(facts: Facts, jobs: Mapping[str, Job], spools: Container[str]) -> None:
    """Forget promises about jobs that no side has, and about those whose starts never arrived and were not promised."""
    for ticket in facts.tickets.values():
        for job_id in [job_id for job_id in ticket.jobs if job_id not in spools]:
            job = jobs.get(job_id)
            if job is None:
                del ticket.jobs[job_id]
            if ticket.acknowledged == job_id and (job is None or not job.promised):
                ticket.acknowledged = ""


def _forget_promise(facts: Facts, job_id: str) -> None:
    """Forget the promise about a job that the scheduler has not heard of again."""
    for ticket in facts.tickets.values():
        ticket.jobs.pop(job_id, None)
        if ticket.acknowledged == job_id:
            ticket.acknowledged = ""


def _forget_answers(facts: Facts, changed: list[str]) -> None:
    """Forget answers about stops and last attempts that the database does not have."""
    for job_id in changed:
        facts.chains_stopped.pop(facts.first_attempt(job_id), None)
        facts.stopped.pop(job_id, None)
        facts.last_attempts.pop(job_id, None)
