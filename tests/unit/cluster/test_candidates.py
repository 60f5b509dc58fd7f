"""The index of workers against a plain scan over all of them, and the work that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.candidates import Candidates, Standing, has_slot
from scheduler.cluster.jobs.placement import place
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Requirement
from scheduler.errors import NoFreeSlot, NoMatch, SchedulerError
from scheduler.model import JobSpec, JobState, Presence, Worker, WorkerState
from scheduler.terms import Target
from tests.unit.cluster.values import a_job, a_worker

ONLINE = Presence(WorkerState.ONLINE)
ANY = Requirement.of(JobSpec(command="echo"), Target(selector={}))

#: Each asks for one thing.
SIMPLE = [
    ANY,
    *(evolve(ANY, labels=frozenset({(key, value)})) for key in "xyz" for value in "12"),
    evolve(ANY, fits_core=False),
    evolve(ANY, features=frozenset({"umask"})),
]

_LABELS = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
_FEATURES = st.frozensets(st.sampled_from(("linger", "umask")))
_DEMANDS = st.builds(
    Requirement, st.none(), _LABELS.map(lambda labels: frozenset(labels.items())), st.booleans(), _FEATURES
)
_IDS = st.sampled_from("abcd")
_WORKERS = st.builds(
    a_worker,
    _IDS,
    name=st.sampled_from("nmo"),  # also the same one twice
    labels=_LABELS,
    slots=st.none() | st.integers(0, 3),
    draining=st.booleans(),
    boot_id=st.sampled_from(("", "boot")),
    features=_FEATURES,
    deregistered_at=st.sampled_from((None, None, 5.0)),
)
_FIELDS = ("labels", "slots", "boot_id", "features", "name", "deregistered_at")
_PRESENCES = st.builds(
    Presence,
    st.sampled_from((WorkerState.ONLINE, WorkerState.UNREACHABLE)),
    refusing=st.none() | st.just("its disk is full"),
)


def by_scan(requirement: Requirement, registry: Registry, withheld: Callable[[Worker], bool]) -> str:
    """The result of ``place`` by looking at every worker: an id, or the text of the error."""
    workers, load = registry.workers.all(), registry.load
    matching = [worker for worker in workers if not worker.draining and requirement.met_by(worker)]
    if not matching:
        return _no_match(requirement, workers)
    online = [worker for worker in matching if registry.presences.of(worker.id).is_online]
    if not online:
        return f"no worker that matches the selector ({requirement}) can be reached"
    with_slots = [worker for worker in online if has_slot(worker, load(worker.id))]
    if not with_slots:
        return f"every worker that matches the selector ({requirement}) has all its slots taken"
    free = [worker for worker in with_slots if not withheld(worker)]
    if not free:
        return f"no worker that matches the selector ({requirement}) takes a job now"
    return min(free, key=lambda worker: (load(worker.id), worker.name, worker.id)).id


def _no_match(requirement: Requirement, workers: list[Worker]) -> str:
    if not workers:
        return "no worker is registered"
    draining = sorted(worker.name for worker in workers if worker.draining and requirement.met_by(worker))
    if draining:
        names = ", ".join(draining[:3]) + (", ..." if len(draining) > 3 else "")
        return f"every worker that matches the selector ({requirement}) is draining: {names}"
    unlimited = evolve(requirement, features=frozenset())
    if any(unlimited.met_by(worker) for worker in workers if not worker.draining):
        return f"no worker that matches the selector ({requirement}) supports {', '.join(sorted(requirement.features))}"
    return f"no worker matches the selector ({requirement})"


class AnyHistory(RuleBasedStateMachine):
    """The index and the scan agree after any changes of workers, jobs, reservations and backoffs."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.reserved: list[str] = []
        self.in_backoff: set[str] = set()
        self.demands = SIMPLE

    @rule(worker=_WORKERS, presence=_PRESENCES)
    def put(self, worker: Worker, presence: Presence) -> None:
        self.registry.put_worker(worker)
        self.see(worker.id, presence)

    @rule(worker_id=_IDS, presence=_PRESENCES)
    def see(self, worker_id: str, presence: Presence) -> None:
        if self.registry.workers.find_registered(worker_id) is not None:
            self.registry.see(worker_id, presence)

    @rule(
        worker_id=_IDS,
        other=_WORKERS,
        field=st.sampled_from(("labels", "slots", "boot_id", "features", "name", "deregistered_at")),
    )
    def change(self, worker_id: str, other: Worker, field: str) -> None:
        known = self.registry.workers.find(worker_id)
        if known is not None:
            self.registry.put_worker(evolve(known, **{field: getattr(other, field)}))

    @rule(worker_id=_IDS)
    def remove(self, worker_id: str) -> None:
        if self.registry.workers.find(worker_id) is not None:
            self.registry.remove_worker(worker_id)

    @rule(
        job_id=st.sampled_from(("j-1", "j-2", "j-3", "j-4")),
        worker_id=_IDS,
        state=st.sampled_from((JobState.RUNNING, JobState.UNKNOWN, JobState.SUCCEEDED, JobState.LOST)),
        orphan=st.booleans(),
    )
    def put_job(self, job_id: str, worker_id: str, state: JobState, orphan: bool) -> None:
        known = self.registry.jobs.find(job_id)
        if known is not None and known.state.final:
            self.registry.remove_job(job_id)
        self.registry.put_job(a_job(job_id, state, worker_id, orphan=orphan and state is JobState.LOST))

    @rule(job_id=st.sampled_from(("j-1", "j-2", "j-3", "j-4")))
    def remove_job(self, job_id: str) -> None:
        if self.registry.jobs.find(job_id) is not None:
            self.registry.remove_job(job_id)

    @rule(worker_id=_IDS)
    def reserve(self, worker_id: str) -> None:
        self.registry.reserve(worker_id)
        self.reserved.append(worker_id)

    @rule()
    def release(self) -> None:
        if self.reserved:
            self.registry.release(self.reserved.pop())

    @rule(worker_id=_IDS, begins=st.booleans())
    def backoff(self, worker_id: str, begins: bool) -> None:
        self.registry.set_backoff(worker_id, begins)
        self.in_backoff = self.in_backoff | {worker_id} if begins else self.in_backoff - {worker_id}

    @rule(requirement=_DEMANDS)
    def ask(self, requirement: Requirement) -> None:
        self.demands = [*SIMPLE, requirement]

    @invariant()
    def agree(self) -> None:
        registry = self.registry
        for requirement in self.demands:
            for tried in ((), ("a", "b")):

                def withheld(worker: Worker, tried: tuple[str, ...] = tried) -> bool:
                    refusing = registry.presences.of(worker.id).refusing is not None
                    return worker.id in tried or refusing or worker.id in self.in_backoff

                told = by_scan(requirement, registry, withheld)
                assert _placed(requirement, registry.candidates, tried) == told
            self.counts_agree(requirement)

    def counts_agree(self, requirement: Requirement) -> None:
        registry = self.registry
        met = [worker for worker in registry.workers.all() if requirement.met_by(worker)]
        tally = registry.candidates.tally(requirement)
        assert tally.total == len(met)
        for standing in Standing:
            those = [worker for worker in met if self.keeps(worker) is standing]
            assert [each.name for each in those] == sorted(
                worker.name for worker in registry.candidates.each(requirement, (standing,))
            )
            assert tally.count[standing] == len(those)
        assert tally.slots == sum(worker.slots or 0 for worker in met if self.keeps(worker) is Standing.FULL)

    def keeps(self, worker: Worker) -> Standing:
        """The standing of a worker that can't take a job."""
        presence = self.registry.presences.of(worker.id)
        held = presence.refusing is not None or worker.id in self.in_backoff
        full = worker.slots is not None and self.registry.load(worker.id) >= worker.slots
        if worker.draining:
            return Standing.DRAINING
        if not presence.is_online:
            return Standing.UNREACHABLE
        if full:
            return Standing.FULL_AND_HELD if held else Standing.FULL
        return Standing.HELD if held else Standing.FREE

    @invariant()
    def facts_agree(self) -> None:
        registry = self.registry
        workers = registry.workers.all()
        assert len(registry.candidates) == len(workers)
        assert registry.presences.online == sum(registry.presences.of(worker.id).is_online for worker in workers)
        offline = [worker.id for worker in workers if registry.presences.of(worker.id).state is WorkerState.OFFLINE]
        assert sorted(worker.id for worker in registry.presences.offline_workers()) == sorted(offline)
        assert sorted(registry.workers.core()) == sorted(worker.id for worker in workers if worker.is_core)
        assert sorted(registry.workers.ids()) == sorted(worker.id for worker in workers)
        known = {worker.id for worker in workers}
        assert sorted(registry.busy_elsewhere()) == sorted(set(registry.jobs.busy()) - known)
        for name in "abnm":
            called = [worker for worker in workers if name in {worker.id, worker.name}]
            assert sorted(each.id for each in registry.workers.called(name)) == sorted(each.id for each in called)


def _placed(requirement: Requirement, candidates: Candidates, tried: tuple[str, ...]) -> str:
    try:
        return place(requirement, candidates, lambda worker: worker.id in tried).id
    except (NoMatch, NoFreeSlot) as error:
        return str(error)


class CandidatesTests(SynchronousTestCase):
    def test_any_history(self) -> None:
        """The worker that is found, or the reason why none is, is that of a scan over all, in every state."""
        few = settings(max_examples=25, stateful_step_count=30)
        run_state_machine_as_test(AnyHistory, settings=few)  # type: ignore[no-untyped-call]

    def test_a_worker_becomes_another(self) -> None:
        """Labels, slots, abilities and names that change are followed, though nothing else of the worker does."""
        workers = {"w-1": a_worker(labels={"x": "1"}, slots=4)}
        candidates = Candidates(workers)
        x = [evolve(ANY, labels=frozenset({("x", value)})) for value in "12"]
        umask = evolve(ANY, features=frozenset({"umask"}))
        for changes, found in (
            ({}, (1, 0, 1, 4)),
            ({"labels": {"x": "2"}}, (0, 1, 1, 4)),
            ({"slots": 3}, (0, 1, 1, 3)),
            ({"features": frozenset()}, (0, 1, 0, 3)),
        ):
            workers["w-1"] = evolve(workers["w-1"], **changes)
            candidates.put(workers["w-1"], ONLINE, 9, in_backoff=False)
            told = (*(candidates.tally(requirement).total for requirement in (*x, umask)), candidates.tally(ANY).slots)
            self.assertEqual(told, found)
        workers["w-1"] = evolve(workers["w-1"], slots=0)
        candidates.put(workers["w-1"], ONLINE, 9, in_backoff=False)
        self.assertEqual((candidates.tally(ANY).total, len(candidates)), (0, 1))

    @given(_DEMANDS, _DEMANDS, _WORKERS)
    def test_demands(self, one: Requirement, other: Requirement, worker: Worker) -> None:
        """Two demands joined are met by who meets both; one that covers another by all who meet that."""
        self.assertEqual(one.joined(other).met_by(worker), one.met_by(worker) and other.met_by(worker))
        if one.covers(other) and other.met_by(worker):
            self.assertTrue(one.met_by(worker))
        self.assertTrue(ANY.covers(evolve(one, fits_core=False)))


class Counted(dict[str, Worker]):
    """Counts how often a worker is looked up."""

    looks = 0

    def __getitem__(self, worker_id: str) -> Worker:
        self.looks += 1
        return super().__getitem__(worker_id)


class CostTests(SynchronousTestCase):
    """The work for one placement among 300 workers, as the number of workers that are looked at."""

    def looks(
        self,
        requirement: Requirement,
        hard: dict[str, Any],
        presence: Presence = ONLINE,
        backoff: bool = False,
        load: int = 0,
    ) -> int:
        """Make all but the last three of 300 workers, in the order of names, hard to use, as the arguments say."""
        workers = Counted()
        candidates = Candidates(workers)
        for number in range(300):
            easy = number >= 297
            facts: dict[str, Any] = {"labels": {"zone": str(number % 2), "rack": str(number)}} | ({} if easy else hard)
            worker = workers[f"w-{number:03}"] = a_worker(f"w-{number:03}", **facts)
            candidates.put(worker, ONLINE if easy else presence, 0 if easy else load, backoff and not easy)
        workers.looks = 0
        self.assertEqual(place(requirement, candidates).id, "w-297" if not requirement.labels else "w-298")
        return workers.looks

    def test_a_placement_looks_at_one_worker(self) -> None:
        """However many others are full, in backoff, refusing, draining or unreachable, or more loaded."""
        zone = evolve(ANY, labels=frozenset({("zone", "0")}))
        for requirement in (ANY, zone):
            self.assertEqual(self.looks(requirement, {}, load=4), 1)
            self.assertEqual(self.looks(requirement, {}, load=1), 1)
            self.assertEqual(self.looks(requirement, {}, backoff=True), 1)
            self.assertEqual(self.looks(requirement, {}, Presence(WorkerState.ONLINE, refusing="its disk is full")), 1)
            self.assertEqual(self.looks(requirement, {"draining": True}), 1)
            self.assertEqual(self.looks(requirement, {}, Presence()), 1)
            self.assertEqual(self.looks(requirement, {"features": frozenset()}, load=4), 1)

    def test_several_labels(self) -> None:
        """The rarest of several labels decides how many are looked at."""
        self.assertEqual(self.looks(evolve(ANY, labels=frozenset({("zone", "0"), ("rack", "298")})), {}), 1)

    def test_a_refusal(self) -> None:
        """Why there is none is found by looking at few, whatever keeps all of them."""
        kept: tuple[tuple[dict[str, Any], Presence], ...] = (
            ({"draining": True}, ONLINE),
            ({}, Presence()),
            ({"slots": 0}, ONLINE),
            ({}, Presence(WorkerState.ONLINE, refusing="its disk is full")),
            ({"slots": 1}, ONLINE),
            ({"features": frozenset()}, ONLINE),
        )
        for facts, presence in kept:
            workers = Counted()
            candidates = Candidates(workers)
            for number in range(300):
                worker = workers[f"w-{number:03}"] = a_worker(f"w-{number:03}", **facts)
                candidates.put(worker, presence, 1, False)
            workers.looks = 0
            self.assertRaises(SchedulerError, place, evolve(ANY, features=frozenset({"umask"})), candidates)
            self.assertLessEqual(workers.looks, 4, (facts, presence))
