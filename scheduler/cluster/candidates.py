"""An index of the workers for jobs with a selector, which finds the least loaded one at once.

Every worker with slots has a *standing*: the reason, if any, why it takes no job by selector now. Its *ability* is
whether it is a core worker, and its features. Each worker is filed in one sorted list for each of its labels, and in
one without a label; a list ("file") has the workers with the same label, ability and standing. Free workers are sorted
by load, then by name, all others by name: see ``Candidates.each``. The dispatcher serves workers in the same
order (``place_of``).

A requirement without labels is answered by the first entries of a few lists. A requirement with labels looks at the
lists of its rarest label, so at no more workers than have that label. A change of a worker or its load moves it in as
many lists as it has labels. Each move takes a search and a shift in a list of pointers: a few microseconds for 10,000
workers.

For one given worker, ``Dispatcher._takes_work`` and ``Choice.now`` ask as well what keeps it from a job.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from heapq import merge

from attrs import frozen

from scheduler.cluster.indices import count_down
from scheduler.cluster.requirement import Label, Requirement
from scheduler.model import Presence, Worker

#: (load of a free worker, else 0; name; id).
Place = tuple[int, str, str]

#: The ability of a worker: whether it is a core worker, and its features.
Ability = tuple[bool, frozenset[str]]


class Standing(enum.IntEnum):
    """The reason why a worker can't take a job by selector now: the first of these that applies."""

    DRAINING = 1
    UNREACHABLE = 2
    #: All its slots are taken, and it is in backoff or takes no job.
    FULL_AND_HELD = 3
    FULL = 4
    #: The worker is in backoff, or says that it takes no job.
    HELD = 5
    FREE = 6


#: All standings but ``DRAINING``: workers with these count as matches of a selector.
PRESENT = tuple(standing for standing in Standing if standing is not Standing.DRAINING)


def has_slot(worker: Worker, load: int) -> bool:
    """Whether placement may put one more job on the worker; ``load`` is the number of its jobs that have not ended."""
    return worker.slots is None or load < worker.slots


def place_of(worker: Worker, load: int) -> Place:
    """The place of a worker among those that jobs are offered to, the first one first: by load, then by name."""
    return load, worker.name, worker.id


def standing_of(worker: Worker, presence: Presence, load: int, in_backoff: bool) -> Standing:
    """The standing of a worker; ``load`` is the number of its jobs that have not ended."""
    if worker.draining:
        return Standing.DRAINING
    if not presence.is_online:
        return Standing.UNREACHABLE
    held = in_backoff or presence.refusing is not None
    if not has_slot(worker, load):
        return Standing.FULL_AND_HELD if held else Standing.FULL
    return Standing.HELD if held else Standing.FREE


@frozen
class Tally:
    """The workers that meet a requirement, counted by standing."""

    count: Counter[Standing]
    #: The slots of all ``FULL`` workers.
    slots: int

    @property
    def total(self) -> int:
        """The number of workers with any standing."""
        return sum(self.count.values())

    @property
    def held(self) -> int:
        """The number of workers that are in backoff or take no job, whether or not all their slots are taken."""
        return self.count[Standing.HELD] + self.count[Standing.FULL_AND_HELD]


@frozen
class _Entry:
    """A worker as it is filed: what decides about its lists, and its place in them."""

    labels: Mapping[str, str]
    slots: int | None
    ability: Ability
    standing: Standing
    place: Place


_File = tuple[Label | None, Ability, Standing]


class Candidates:
    """An index of the workers with slots, by label, ability and standing. Do not change it while ``each`` iterates."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        """``workers`` by id, as they are now; the registry keeps this mapping up to date."""
        self._workers = workers
        self._entries: dict[str, _Entry] = {}
        self._files: dict[_File, list[Place]] = {}
        # the number of workers with a label, and with an ability
        self._labelled: Counter[Label | None] = Counter()
        self._abilities: Counter[Ability] = Counter()
        # the slots of the ``FULL`` workers
        self._slots: Counter[tuple[Label | None, Ability]] = Counter()

    def __len__(self) -> int:
        """The number of all workers, also of those without slots."""
        return len(self._workers)

    def put(self, worker: Worker, presence: Presence, load: int, in_backoff: bool) -> None:
        """File a worker as it is now, or remove it if it has no slots; ``load`` counts its jobs that have not ended."""
        if worker.slots == 0:
            self.remove(worker.id)
            return
        standing = standing_of(worker, presence, load, in_backoff)
        place = place_of(worker, load if standing is Standing.FREE else 0)
        entry = _Entry(worker.labels, worker.slots, (worker.is_core, worker.features), standing, place)
        before = self._entries.get(worker.id)
        if entry == before:
            return
        if before is not None:
            self._take(before)
        self._entries[worker.id] = entry
        self._file(entry)

    def remove(self, worker_id: str) -> None:
        """Remove a worker that is no longer in the registry, or has no slots."""
        entry = self._entries.pop(worker_id, None)
        if entry is not None:
            self._take(entry)

    def each(self, requirement: Requirement, standings: Collection[Standing]) -> Iterator[Worker]:
        """The workers with one of these standings that meet the requirement, which must not name a worker.

        ``FREE`` workers come by load, then by name; all others by name.
        """
        label = self._rarest(requirement)
        files = [
            self._files.get((label, ability, standing))
            for ability in self._suited(requirement)
            for standing in standings
        ]
        for _, _, worker_id in merge(*filter(None, files)):
            worker = self._workers[worker_id]
            if len(requirement.labels) < 2 or requirement.labels <= worker.labels.items():
                yield worker

    def any(self, requirement: Requirement, standings: Collection[Standing]) -> bool:
        """Whether ``each`` finds a worker."""
        return next(self.each(requirement, standings), None) is not None

    def tally(self, requirement: Requirement) -> Tally:
        """The number of workers that meet the requirement, by standing. The requirement must not name a worker."""
        count: Counter[Standing] = Counter()
        slots = 0
        if len(requirement.labels) < 2:
            label = self._rarest(requirement)
            for ability in self._suited(requirement):
                for standing in Standing:
                    count[standing] += len(self._files.get((label, ability, standing), ()))
                slots += self._slots[label, ability]
        else:
            for worker in self.each(requirement, tuple(Standing)):
                entry = self._entries[worker.id]
                count[entry.standing] += 1
                slots += (worker.slots or 0) if entry.standing is Standing.FULL else 0
        return Tally(count, slots)

    def _rarest(self, requirement: Requirement) -> Label | None:
        """The label of the requirement that the fewest workers have; ``None``: it has no labels."""
        return min(requirement.labels, key=lambda label: (self._labelled[label], label), default=None)

    def _suited(self, requirement: Requirement) -> Iterator[Ability]:
        return (ability for ability in self._abilities if requirement.suits(*ability))

    def _file(self, entry: _Entry) -> None:
        self._abilities[entry.ability] += 1
        for label in (None, *entry.labels.items()):
            self._labelled[label] += 1
            insort(self._files.setdefault((label, entry.ability, entry.standing), []), entry.place)
            if entry.standing is Standing.FULL:
                self._slots[label, entry.ability] += entry.slots or 0

    def _take(self, entry: _Entry) -> None:
        count_down(self._abilities, entry.ability)
        for label in (None, *entry.labels.items()):
            count_down(self._labelled, label)
            file = self._files[label, entry.ability, entry.standing]
            del file[bisect_left(file, entry.place)]
            if not file:
                del self._files[label, entry.ability, entry.standing]
            if entry.standing is Standing.FULL:
                count_down(self._slots, (label, entry.ability), entry.slots or 0)
