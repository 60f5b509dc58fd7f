from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.candidates import Candidates
from scheduler.cluster.jobs.placement import place
from scheduler.cluster.requirement import Requirement
from scheduler.errors import Conflict, NoFreeSlot
from scheduler.model import JobSpec, Presence, Worker, WorkerState
from scheduler.terms import Target
from tests.unit.cluster.values import a_worker

ECHO = JobSpec(command="echo")


def filed(*workers: tuple[Worker, int], gone: str = "") -> Candidates:
    """These workers, each with its load; that with the id ``gone`` is unreachable."""
    candidates = Candidates({worker.id: worker for worker, _ in workers})
    for worker, load in workers:
        presence = Presence() if worker.id == gone else Presence(WorkerState.ONLINE)
        candidates.put(worker, presence, load, in_backoff=False)
    return candidates


class PlacementTests(SynchronousTestCase):
    def choose(self, *candidates: tuple[Worker, int], spec: JobSpec = ECHO, gone: str = "", **selector: str) -> str:
        return place(Requirement.of(spec, Target(selector=selector)), filed(*candidates, gone=gone)).id

    def test_least_loaded(self) -> None:
        """The worker with the fewest unfinished jobs is chosen."""
        self.assertEqual(self.choose((a_worker("a"), 2), (a_worker("b"), 1), (a_worker("c"), 3)), "b")

    def test_ties_go_to_the_lower_name(self) -> None:
        """Between equally loaded workers the name decides, so the choice can be foretold."""
        self.assertEqual(self.choose((a_worker("b"), 1), (a_worker("a"), 1)), "a")

    def test_selector(self) -> None:
        """Only a worker that has every label of the selector is chosen, however loaded it is."""
        gpu = a_worker("gpu", labels={"gpu": "yes", "os": "linux"})
        self.assertEqual(
            self.choose((a_worker("idle", labels={"gpu": "yes"}), 0), (gpu, 3), gpu="yes", os="linux"), "gpu"
        )

    def test_no_match(self) -> None:
        """A selector that no worker has is a conflict that names it."""
        self.assertRaisesRegex(Conflict, "gpu=yes", self.choose, (a_worker("a"), 0), gpu="yes")

    def test_draining(self) -> None:
        """A draining worker is as if it were not there."""
        self.assertEqual(self.choose((a_worker("a", draining=True), 0), (a_worker("b"), 3)), "b")
        with self.assertRaisesRegex(Conflict, r"every worker that matches the selector \(any worker\) is draining: a$"):
            self.choose((a_worker("a", draining=True), 0))
        many = [(a_worker(name, draining=True), 0) for name in "edcba"]
        self.assertRaisesRegex(Conflict, r"is draining: a, b, c, \.\.\.$", self.choose, *many)
        self.assertRaisesRegex(Conflict, "no worker matches the selector", self.choose, *many, name="f")

    def test_none(self) -> None:
        """With no worker at all it is said that there is none."""
        self.assertRaisesRegex(Conflict, "no worker is registered", self.choose)

    def test_unreachable(self) -> None:
        """An unreachable worker takes no job, but it matches: later may be better."""
        self.assertEqual(self.choose((a_worker("a"), 0), (a_worker("b"), 3), gone="a"), "b")
        self.assertRaisesRegex(NoFreeSlot, "can be reached", self.choose, (a_worker("a"), 0), gone="a")

    def test_slots(self) -> None:
        """A worker with all slots taken gets nothing more by selector."""
        self.assertEqual(self.choose((a_worker("a", slots=1), 1), (a_worker("b", slots=9), 8)), "b")
        self.assertRaisesRegex(NoFreeSlot, "slots taken", self.choose, (a_worker("a", slots=1), 1))

    def test_no_slots(self) -> None:
        """A worker with zero slots is as if it were not there; unknown slots take any number."""
        self.assertRaises(Conflict, self.choose, (a_worker("a", slots=0), 0))
        self.assertEqual(self.choose((a_worker("a", slots=None), 1000)), "a")

    def test_withheld(self) -> None:
        """A worker that is withheld gets nothing, and matches."""
        workers, requirement = filed((a_worker("a"), 0), (a_worker("b"), 3)), Requirement.of(ECHO, Target(selector={}))
        self.assertEqual(place(requirement, workers, lambda worker: worker.id == "a").id, "b")
        with self.assertRaisesRegex(NoFreeSlot, r"no worker that matches the selector \(any worker\) takes a job now"):
            place(requirement, workers, lambda worker: True)

    def test_features(self) -> None:
        """A worker that lacks what the job needs does not match; if it is that alone, that is said."""
        spec = JobSpec(command="a", umask=0, linger=0.0)
        none = frozenset[str]()
        workers = (a_worker("a", features=none), 0), (a_worker("b", features={"umask"}), 0)
        self.assertEqual(self.choose(*workers, (a_worker("c", features={"umask", "linger", "x"}), 3), spec=spec), "c")
        with self.assertRaisesRegex(Conflict, r"no worker that matches the selector \(name=b\) supports linger, umask"):
            self.choose(*workers, spec=spec, name="b")
        for others in (
            (a_worker("b", draining=True, features=none), 0),
            (a_worker("b", boot_id=""), 0),
            (a_worker("b", slots=0), 0),
        ):
            self.assertRaisesRegex(Conflict, "no worker matches the selector", self.choose, others, spec=spec)

    def test_core_worker(self) -> None:
        """A core worker is chosen only for what it can be told: a command and a path."""
        core = a_worker("a", boot_id="", slots=None)
        self.assertEqual(self.choose((core, 0), (a_worker("b"), 3), spec=JobSpec(command="sh", path="x")), "a")
        self.assertEqual(self.choose((core, 0), (a_worker("b"), 3), spec=JobSpec(command="sh", args=("x",))), "b")
        self.assertRaises(Conflict, self.choose, (core, 0), spec=JobSpec(command="sh", timeout=5))
