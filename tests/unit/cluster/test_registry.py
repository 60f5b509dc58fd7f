from __future__ import annotations

import hashlib
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster import listing
from scheduler.cluster.filters import selects
from scheduler.cluster.registry import Registry
from scheduler.errors import Invalid, NotFound
from scheduler.model import JobSpec, JobState, Presence, Ref, RemovedJob, WorkerState
from scheduler.request_keys import RequestKey
from scheduler.views import JobFilter
from tests.unit.cluster.values import a_job, a_worker

ANY = JobFilter()


class WorkerTests(SynchronousTestCase):
    def test_by_id_or_name(self) -> None:
        registry = Registry()
        worker = a_worker("id-1", name="box")
        registry.put_worker(worker)
        self.assertEqual((registry.workers.get("id-1"), registry.workers.get("box")), (worker, worker))
        self.assertRaisesRegex(NotFound, "worker 'bax' not found", registry.workers.get, "bax")

    def test_the_live_one_has_the_name(self) -> None:
        """A name of several workers means the one that is online, or was seen last."""
        registry = Registry()
        for worker_id, presence in (
            ("z", Presence(last_seen=2.0)),
            ("a", Presence(WorkerState.ONLINE, last_seen=1.0)),
            ("b", Presence(last_seen=3.0)),
        ):
            registry.put_worker(a_worker(worker_id, name="box"))
            registry.see(worker_id, presence)
        self.assertEqual(registry.workers.get("box").id, "a")
        registry.remove_worker("a")
        self.assertEqual(registry.workers.get("box").id, "b")

    def test_listed_by_name(self) -> None:
        registry = Registry()
        for name in ("c", "a", "b"):
            registry.put_worker(a_worker(f"id-{name}", name=name))
        self.assertEqual([worker.name for worker in registry.workers.all()], ["a", "b", "c"])

    def test_by_name_and_address(self) -> None:
        """Workers are found by the name and the address that they have now, and by no earlier one."""
        registry = Registry()
        for worker_id in ("b", "a"):
            registry.put_worker(a_worker(worker_id, name="box", address="h:1"))
        self.assertEqual([worker.id for worker in registry.workers.named("box")], ["a", "b"])
        self.assertEqual([worker.id for worker in registry.workers.at_address("h:1")], ["a", "b"])
        moved = a_worker("a", name="bax", address="h:2")
        registry.put_worker(moved)
        registry.remove_worker("b")
        self.assertEqual((registry.workers.named("box"), registry.workers.at_address("h:1")), ([], []))
        self.assertEqual((registry.workers.named("bax"), registry.workers.at_address("h:2")), ([moved], [moved]))
        self.assertEqual((registry.workers.has("box"), registry.workers.has("bax")), (False, True))

    def test_offline(self) -> None:
        """Offline workers are found as long as they are offline."""
        registry = Registry()
        for worker_id in ("b", "a", "c"):
            registry.put_worker(a_worker(worker_id, deregistered_at=5.0))
        registry.put_worker(a_worker("b"))
        registry.remove_worker("c")
        self.assertEqual([worker.id for worker in registry.presences.offline_workers()], ["a"])
        self.assertEqual((registry.workers.find_registered("a"), registry.workers.find_registered("c")), (None, None))
        self.assertEqual(registry.workers.find_registered("b"), registry.workers.find("b"))

    def test_presence(self) -> None:
        """A worker is unreachable until it is seen. Once it deregistered it is offline, and was last seen then."""
        registry = Registry()
        registry.put_worker(a_worker())
        self.assertEqual((registry.presences.of("w-1"), registry.presences.of("w-9")), (Presence(), Presence()))
        registry.see("w-1", Presence(WorkerState.ONLINE, refusing="no room"))
        self.assertEqual(registry.presences.online, 1)
        registry.put_worker(a_worker(deregistered_at=5.0))
        why = "it deregistered at 1970-01-01T00:00:05Z"
        self.assertEqual(registry.presences.of("w-1"), Presence(WorkerState.OFFLINE, why, last_seen=5.0))
        self.assertEqual(registry.presences.online, 0)
        registry.put_worker(a_worker())
        self.assertEqual(registry.presences.of("w-1"), Presence())

    def test_found_by_ref(self) -> None:
        """Each kind of record is found by what its ``ref`` says, until it is removed."""
        registry = Registry()
        removed = RemovedJob("j-0", 5.0)
        registry.put_worker(a_worker())
        registry.put_job(a_job())
        registry.put_removed(removed)
        for record in (a_worker(), a_job(), removed):
            self.assertEqual(registry.find(record.ref), record)
        self.assertIsNone(registry.find(Ref("job", "w-1")))
        registry.remove_worker("w-1")
        registry.remove_job("j-1")
        registry.drop_removed(removed)
        self.assertEqual([registry.find(record.ref) for record in (a_worker(), a_job(), removed)], [None] * 3)

    def test_found_by_key(self) -> None:
        """A key leads to its first job, then to what is left of that, and then nowhere."""
        registry, key = Registry(), RequestKey("k", "f")
        registry.put_job(job := a_job(state=JobState.FAILED, key=key))
        registry.put_job(a_job("j-2", JobState.FAILED, key=key))
        self.assertEqual(registry.find_key(key), job)
        registry.remove_job("j-2")
        registry.put_job(job := evolve(job, leftover=(7,)))
        self.assertEqual(registry.find_key(key), job)
        removed = RemovedJob("j-1", 5.0, key)
        registry.remove_job("j-1")
        registry.put_removed(removed)
        registry.put_job(a_job("j-3", key=key))
        registry.remove_job("j-3")
        self.assertEqual(registry.find_key(key), removed)
        registry.drop_removed(removed)
        self.assertIsNone(registry.find_key(key))

    def test_keys_of_principals(self) -> None:
        """The same text is a key of each principal; a key whose principal is not known is a key of all others."""
        registry, keys = Registry(), [RequestKey("k", "f", name) for name in ("token:a", "token:b", "token:c")]
        a, b, unknown = (a_job(f"j-{n}", key=key) for n, key in enumerate((*keys[:2], RequestKey("k", "f"))))
        for job in (a, b):
            registry.put_job(job)
        self.assertEqual([registry.find_key(key) for key in keys], [a, b, None])
        registry.put_job(unknown)
        self.assertEqual([registry.find_key(key) for key in keys], [a, b, unknown])
        registry.remove_job(a.id)
        registry.put_removed(removed := RemovedJob(a.id, 5.0, a.key))
        self.assertEqual([registry.find_key(key) for key in keys], [removed, b, unknown])
        registry.drop_removed(removed)
        registry.remove_job(b.id)
        self.assertEqual([registry.find_key(key) for key in keys], [unknown] * 3)

    def test_load_counts_what_is_reserved(self) -> None:
        """A start under way counts into the load before its job is there, so two can't take one slot."""
        registry = Registry()
        registry.put_worker(a_worker())
        registry.put_job(a_job())
        registry.put_job(a_job("j-2", JobState.SUCCEEDED))
        registry.reserve("w-1")
        self.assertEqual((registry.load("w-1"), registry.jobs.count_unfinished("w-1")), (2, 1))
        registry.release("w-1")
        self.assertEqual(registry.load("w-1"), 1)


class JobTests(SynchronousTestCase):
    def test_illegal_transition(self) -> None:
        """A transition the model does not allow is a bug and changes nothing."""
        registry = Registry()
        registry.put_job(a_job(state=JobState.SUCCEEDED))
        with self.assertRaisesRegex(ValueError, "succeeded may not become running"):
            registry.put_job(a_job(state=JobState.RUNNING))
        self.assertIs(registry.jobs.get("j-1").state, JobState.SUCCEEDED)

    def test_unfinished(self) -> None:
        """A worker's unfinished jobs are known, oldest first, and leave the list as they end."""
        registry = Registry()
        registry.put_job(a_job("late", created_at=2000.0))
        registry.put_job(a_job("early", created_at=1000.0))
        self.assertEqual([job.id for job in registry.jobs.unfinished("w-1")], ["early", "late"])
        registry.put_job(a_job("early", JobState.FAILED, created_at=1000.0))
        self.assertEqual([job.id for job in registry.jobs.unfinished("w-1")], ["late"])

    def test_remove(self) -> None:
        """A removed job is gone from every listing."""
        registry = Registry()
        registry.put_job(a_job("a"))
        registry.put_job(a_job("b"))
        registry.remove_job("a")
        self.assertEqual([job.id for job in registry.jobs.listing.matching(ANY)], ["b"])
        self.assertEqual(registry.load("w-1"), 1)
        self.assertRaises(NotFound, registry.jobs.get, "a")

    def test_surplus(self) -> None:
        """The job that ended first goes first, not the one that was made first."""
        registry = Registry()
        for number in range(4):
            registry.put_job(a_job(f"j{number}", created_at=float(number)))
        for number in (2, 0, 3):
            registry.put_job(a_job(f"j{number}", JobState.SUCCEEDED, created_at=float(number)))
        self.assertEqual(registry.jobs.finished.surplus(keep=1), ["j2", "j0"])
        self.assertEqual(registry.jobs.finished.surplus(keep=5), [])

    def test_adopted(self) -> None:
        """Jobs first heard of from their workers are counted by worker, and are no surplus."""
        registry = Registry()
        registry.put_job(a_job("placed", JobState.SUCCEEDED))
        for number in range(3):
            registry.put_job(a_job(f"j{number}", target=None))
            registry.put_job(a_job(f"j{number}", JobState.SUCCEEDED, target=None))
        registry.put_job(a_job("other", worker_id="w-2", target=None))
        self.assertEqual(
            (registry.jobs.adopted("w-1"), registry.jobs.adopted("w-2"), registry.jobs.adopted()), (3, 1, 4)
        )
        self.assertEqual(registry.jobs.finished.surplus(keep=0), ["placed"])
        self.assertEqual({job.id for job in registry.jobs.finished.all()}, {"placed", "j0", "j1", "j2"})
        self.assertEqual([job.id for job in registry.jobs.finished.first(2)], ["placed", "j0", "j1"])
        registry.remove_job("j0")
        registry.put_job(a_job("other", worker_id="w-1", target=None))
        self.assertEqual(
            (registry.jobs.adopted("w-1"), registry.jobs.adopted("w-2"), registry.jobs.adopted()), (3, 0, 3)
        )


class ListingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = Registry()
        self.registry.put_job(a_job("a", JobState.SUCCEEDED, created_at=10.0, finished_at=20.0))
        self.registry.put_job(a_job("b", JobState.FAILED, "w-2", created_at=11.0, finished_at=15.0, worker_name="box"))
        self.registry.put_job(
            a_job("c", created_at=12.0, spec=JobSpec(command="x", labels={"team": "blue", "tier": "1"}))
        )

    def ids(self, **fields: object) -> str:
        return "".join(job.id for job in self.registry.jobs.listing.matching(JobFilter(**fields)))  # type: ignore[arg-type]

    def test_filters(self) -> None:
        """Every field that is set must match; times are half open; a job without an end has no time of it."""
        self.assertEqual(self.ids(), "cba")
        self.assertEqual(self.ids(worker="box"), "b")
        self.assertEqual(self.ids(worker="w-1"), "ca")
        self.assertEqual(self.ids(states=frozenset({JobState.FAILED, JobState.RUNNING})), "cb")
        self.assertEqual(self.ids(labels={"team": "blue"}), "c")
        self.assertEqual(self.ids(labels={"team": "blue", "tier": "2"}), "")
        self.assertEqual(self.ids(created_after=11.0), "cb")
        self.assertEqual(self.ids(created_before=11.0), "a")
        self.assertEqual(self.ids(finished_after=15.0, finished_before=20.0), "b")
        self.assertEqual(self.ids(finished_before=100.0), "ba")
        self.assertEqual(self.ids(created_by="nobody"), "")

    def test_id_prefix(self) -> None:
        """Jobs whose ids begin so are found, newest first and page by page, until they are removed."""
        for job_id, created_at in (("abcdef-1", 30.0), ("abcdef-2", 20.0), ("abcdee-3", 40.0), ("abcdef-4", 25.0)):
            self.registry.put_job(a_job(job_id, created_at=created_at))
        which = JobFilter(id_prefix="abcdef")
        found = self.registry.jobs.listing.matching(which)
        self.assertEqual([job.id for job in found], ["abcdef-1", "abcdef-4", "abcdef-2"])
        page = self.registry.jobs.listing.page(which, 2, None)
        self.assertEqual([job.id for job in page.jobs], ["abcdef-1", "abcdef-4"])
        self.assertEqual([job.id for job in self.registry.jobs.listing.page(which, 2, page.next).jobs], ["abcdef-2"])
        self.registry.remove_job("abcdef-4")
        self.assertEqual([job.id for job in self.registry.jobs.listing.matching(which)], ["abcdef-1", "abcdef-2"])
        self.assertEqual(self.ids(id_prefix="abcdef-1", worker="w-2"), "")
        self.assertEqual(self.ids(id_prefix="zzzzzz"), "")

    def test_id_prefix_of_many(self) -> None:
        """Only a few of many jobs are looked at."""
        registry, looked_at, ids = Registry(), 0, []
        for number in range(2000):
            ids.append(hashlib.sha256(str(number).encode()).hexdigest())
            registry.put_job(a_job(ids[-1], created_at=float(number)))

        def counted(*args: Any) -> bool:
            nonlocal looked_at
            looked_at += 1
            return selects(*args)

        self.patch(listing, "selects", counted)
        prefix = ids[0][:6]
        self.assertEqual([job.id[:6] for job in registry.jobs.listing.matching(JobFilter(id_prefix=prefix))], [prefix])
        self.assertLess(looked_at, 50)
        self.assertGreater(looked_at, 0)

    def test_a_cursor_of_ours_only(self) -> None:
        """A cursor that no list gave is refused by name."""
        for cursor in ("", "x", "!!!", "bm90aGluZw==", "\u2603"):
            with self.assertRaises(Invalid) as caught:
                self.registry.jobs.listing.page(ANY, 10, cursor)
            self.assertEqual(caught.exception.field, "cursor")

    @given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 7))
    def test_pages_are_the_listing(self, times: list[int], limit: int) -> None:
        """Following the cursors gives every job once, newest first, many of one time included."""
        registry = Registry()
        for number, created_at in enumerate(times):
            registry.put_job(a_job(f"j{number}", created_at=float(created_at)))
        seen: list[str] = []
        cursor = None
        while True:
            page = registry.jobs.listing.page(ANY, limit, cursor)
            seen += [job.id for job in page.jobs]
            if page.next is None:
                break
            self.assertEqual(len(page.jobs), limit)
            cursor = page.next
        self.assertEqual(seen, [job.id for job in registry.jobs.listing.matching(ANY)])
        self.assertEqual(len(set(seen)), len(times))

    def test_a_job_made_meanwhile_shifts_no_page(self) -> None:
        """The next page goes on where the last ended, whatever came since."""
        first = self.registry.jobs.listing.page(ANY, 1, None)
        self.registry.put_job(a_job("d", created_at=99.0))
        self.assertEqual([job.id for job in self.registry.jobs.listing.page(ANY, 5, first.next).jobs], ["b", "a"])
