"""The audit is whole, and has the start of every job that a client submitted."""

from __future__ import annotations

from scheduler.security.audit import verify
from tests.simulation.rules.rule import Rule


class Recorded(Rule):
    """Looks at the audit in the database when the run is over."""

    def rested(self) -> None:
        entries = self.facts.world.database.audit
        verdict = verify(reversed(entries))
        if verdict.broken:
            self.broken("the audit is a chain", verdict.why)
        started = {entry.act.target for entry in entries if entry.act.action == "start"}
        for job in self.facts.shown.values():
            if job.target is not None and job.retry_of is None and job.id not in started:
                self.broken("a start is in the audit", f"job {job.id} exists, and the audit has no start of it", job.id)
