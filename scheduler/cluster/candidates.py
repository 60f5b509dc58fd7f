"""The workers that jobs with a selector may be placed on, filed so that the least loaded of them is found at once.

Theory of operation. Every worker with slots has a standing, which says what keeps it from
taking a job by selector now, if anything. It is filed under each of its labels, and
once under none; there by what it can do, and by its standing. Each file is a sorted list:
of those that are free the least loaded comes first, of all others the lowest name.
A requirement without labels is answered by the first entries of a few files. One with labels
looks under the rarest of them, at as many workers as have that label at most.

A change of a worker or its load moves it in as many files as it has labels. That takes
a search and a move in a list of pointers: a few microseconds where there are 10,000.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from heapq import merge
from typing import TypeVar

from attrs import frozen

from scheduler.cluster.requirement import Label, Requirement
from scheduler.model import Worker, WorkerState

K = TypeVar("K")

#: (load of one that is free, else 0; name; id).
Place = tuple[int, str, str]

#: What a worker can do: whether it is a core worker, and its features.
Ability = tuple[bool, frozenset[str]]


class Standing(enum.IntEnum):
    """The first of these that is true of a worker: it says why the worker can't take a job by selector now."""

    DRAINING = 1
    UNREACHABLE = 2
    #: All its slots are taken, and it is held back as well.
    FULL_AND_HELD = 3
    FULL = 4
    #: It is in backoff, or says that it takes no job.
    HELD = 5
    FREE = 6


#: All but those that are draining: these count as matches of a selector.
PRESENT = tuple(standing for standing in Standing if standing is not Standing.DRAINING)


def has_slot(worker: Worker, load: int) -> bool:
    """Whether placement may put one more job on it; ``load`` is how many of its jobs have not ended."""
    return worker.slots is None or load < worker.slots


def standing_of(worker: Worker, load: int, in_backoff: bool) -> Standing:
    """The standing of a worker; ``load`` is how many of its jobs have not ended."""
    if worker.draining:
        return Standing.DRAINING
    if worker.state is not WorkerState.ONLINE:
        return Standing.UNREACHABLE
    held = in_backoff or worker.refusing is not None
    if not has_slot(worker, load):
        return Standing.FULL_AND_HELD if held else Standing.FULL
    return Standing.HELD if held else Standing.FREE


@frozen
class Tally:
    """The workers that meet a requirement, counted by standing."""

    count: Mapping[Standing, int]
    #: Of those that are ``FULL``, together.
    slots: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.count.values())


@frozen
class _Entry:
    """The places where one worker is filed."""

    worker: Worker
    ability: Ability
    standing: Standing
    place: Place

    def is_for(self, worker: Worker) -> bool:
        """Whether it holds for the worker as that is now, if standing and place do."""
        before = self.worker
        return before is worker or (
            before.labels == worker.labels
            and before.slots == worker.slots
            and self.ability == (worker.is_core, worker.features)
        )


_File = tuple[Label | None, Ability, Standing]


class Candidates:
    """All workers of the registry, which tells of every change; do not change it while you iterate."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        """``workers`` by id, as they are now."""
        self._workers = workers
        self._entries: dict[str, _Entry] = {}
        self._files: dict[_File, list[Place]] = {}
        # how many workers are filed under a label, and how many can do the same
        self._labelled: Counter[Label | None] = Counter()
        self._abilities: Counter[Ability] = Counter()
        # the slots of those that are ``FULL``
        self._slots: Counter[tuple[Label | None, Ability]] = Counter()

    def __len__(self) -> int:
        """The number of workers, with slots or without."""
        return len(self._workers)

    def put(self, worker: Worker, load: int, in_backoff: bool) -> None:
        """File a worker as it is now; ``load`` is how many of its jobs have not ended."""
        if worker.slots == 0:
            self.remove(worker.id)
            return
        standing = standing_of(worker, load, in_backoff)
        place = (load if standing is Standing.FREE else 0, worker.name, worker.id)
        entry = self._entries.get(worker.id)
        if entry is not None:
            if entry.standing is standing and entry.place == place and entry.is_for(worker):
                return
            self._take(entry)
        entry = _Entry(worker, (worker.is_core, worker.features), standing, place)
        self._entries[worker.id] = entry
        self._file(entry)

    def remove(self, worker_id: str) -> None:
        """Take out a worker that is no longer known, or has no slots."""
        entry = self._entries.pop(worker_id, None)
        if entry is not None:
            self._take(entry)

    def each(self, requirement: Requirement, standings: Collection[Standing]) -> Iterator[Worker]:
        """The workers with one of these standings that meet the requirement, which names no worker.

        Those that are ``FREE`` come least loaded first, and of equally loaded ones the lowest name; others by name.
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
        """Whether there is one of these."""
        return next(self.each(requirement, standings), None) is not None

    def tally(self, requirement: Requirement) -> Tally:
        """All that meet the requirement, which names no worker, counted."""
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
        for label in (None, *entry.worker.labels.items()):
            self._labelled[label] += 1
            insort(self._files.setdefault((label, entry.ability, entry.standing), []), entry.place)
            if entry.standing is Standing.FULL:
                self._slots[label, entry.ability] += entry.worker.slots or 0

    def _take(self, entry: _Entry) -> None:
        _count_down(self._abilities, entry.ability, 1)
        for label in (None, *entry.worker.labels.items()):
            _count_down(self._labelled, label, 1)
            file = self._files[label, entry.ability, entry.standing]
            del file[bisect_left(file, entry.place)]
            if not file:
                del self._files[label, entry.ability, entry.standing]
            if entry.standing is Standing.FULL:
                _count_down(self._slots, (label, entry.ability), entry.worker.slots or 0)


def _count_down(counter: Counter[K], key: K, by: int) -> None:
    counter[key] -= by
    if not counter[key]:
        del counter[key]
