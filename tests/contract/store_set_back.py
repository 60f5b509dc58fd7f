"""The contract of a store whose database can be set back while it is in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from scheduler.interfaces import Loaded, Record
from scheduler.model import JobState, Ref, RemovedJob
from scheduler.store.rows import ARGS_LOST
from tests.contract.any_records import LARGE
from tests.unit.cluster.values import a_job, a_token, a_worker


class SetBackContract:
    """The contract of a store that can be set back while in use. Mixed into a ``TestCase`` of a store contract."""

    store: Any

    async def set_back(self) -> None:
        """Restore the database's state when ``kept`` was saved."""
        raise NotImplementedError

    #: Records that the standby has, and records that were saved later.
    kept: Sequence[Record] = (a_job(), a_job("j-2"), a_worker(), RemovedJob("j-0", 1.0))
    since: Sequence[Record] = (
        Ref("job", "j-1"),
        Ref("removed", "j-0"),
        a_job("j-3"),
        evolve(a_worker(), draining=True),
        a_token(),
    )
    held = Loaded((a_job("j-2"), a_job("j-3")), (evolve(a_worker(), draining=True),), tokens=(a_token(),))
    #: The counts that the standby has.
    kept_commits, kept_transactions = 1, 1

    async def in_use(self, counts: bool = True) -> None:
        """Save all of ``kept`` and ``since``, and set the store back."""
        await self.store.load()
        if counts:
            await self.store.count_commits()
        self.kept_commits = int(counts)
        await self.store.save(self.kept)
        for record in self.since:
            await self.store.save([record])
        self.store.restore_from(lambda: self.held)
        await self.set_back()

    async def test_set_back_before_a_save(self) -> None:
        """The records in memory are saved again before a save is answered, and others are removed."""
        await self.in_use()
        await self.store.save([a_job("j-4")])
        count = self.store.commit_count
        loaded = await self.again()  # type: ignore[attr-defined]
        self.assertEqual(loaded, evolve(self.held, jobs=(*self.held.jobs, a_job("j-4"))))  # type: ignore[attr-defined]
        self.assertEqual((loaded.commit_count, count > 5), (count, True))  # type: ignore[attr-defined]

    async def test_set_back_at_first(self) -> None:
        """The same holds before commits are counted, and they still are not counted afterwards."""
        await self.in_use(counts=False)
        await self.store.verify()
        self.store.restore_from(Loaded)
        await self.store.save([a_job("j-4")])
        loaded = await self.again()  # type: ignore[attr-defined]
        self.assertEqual(loaded, evolve(self.held, jobs=(*self.held.jobs, a_job("j-4"))))  # type: ignore[attr-defined]
        self.assertEqual((loaded.commit_count, self.store.commit_count), (0, 0))

    async def test_set_back_with_large_arguments(self) -> None:
        """If memory has a part of a job, the rest comes from the standby; otherwise it is lost, and the job says so."""
        there, lost = (a_job(job_id, JobState.FAILED, spec=LARGE, reason="why") for job_id in ("j-2", "j-3"))
        self.kept = (a_job(), there, a_worker(), RemovedJob("j-0", 1.0))
        self.since = (lost,)
        self.held = Loaded((a_job(), there.trimmed(), lost.trimmed()))
        await self.in_use()
        await self.store.verify()
        self.assertEqual(list(await self.store.read_specs(["j-2", "j-3"])), ["j-2"])
        await self.store.save([evolve(lost.trimmed(), remove_requested_at=5.0)])
        found = {job.id: job for job in (await self.again()).jobs}  # type: ignore[attr-defined]
        self.assertTrue(found["j-3"].spec.stored)
        self.assertEqual(list(await self.store.read_specs(["j-3"])), [])
        reasons = {job_id: job.reason for job_id, job in found.items()}
        self.assertEqual(reasons, {"j-1": None, "j-2": "why", "j-3": f"why; {ARGS_LOST}"})
        self.assertEqual((await self.store.read_specs(["j-2"]))["j-2"].args, LARGE.args)

    async def test_set_back_at_rest(self) -> None:
        """The same holds without a save, once the store is verified; and only once."""
        await self.in_use()
        await self.store.verify()
        count = self.store.commit_count
        self.store.restore_from(Loaded)
        await self.store.verify()
        loaded = await self.again()  # type: ignore[attr-defined]
        self.assertEqual((loaded, loaded.commit_count), (self.held, count))  # type: ignore[attr-defined]

    async def test_set_back_with_more_transactions(self) -> None:
        """A standby that followed another timeline may have had more transactions. Its count of commits is lower."""
        self.kept_transactions = 20
        await self.in_use()
        await self.store.verify()
        self.assertEqual(await self.again(), self.held)  # type: ignore[attr-defined]
