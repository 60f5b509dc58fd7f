"""An index: sets of ids by a key. A counter that drops what is zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from typing import Generic, TypeVar

K = TypeVar("K")


def count_down(counter: Counter[K], key: K, by: int = 1) -> None:
    """Subtract ``by``, and drop a key that counts nothing any more."""
    counter[key] -= by
    if not counter[key]:
        del counter[key]


class Index(Generic[K]):
    """Ids by a key. A key without ids is not there. Iterates over the keys, in the order in which they came."""

    def __init__(self) -> None:
        self._ids: dict[K, set[str]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._ids

    def __iter__(self) -> Iterator[K]:
        return iter(self._ids)

    def of(self, key: K) -> Set[str]:
        """The ids under that key; do not change the index while you iterate over them."""
        return self._ids.get(key, frozenset())

    def add(self, key: K, its_id: str) -> None:
        """Add an id under that key, unless it is there."""
        self._ids.setdefault(key, set()).add(its_id)

    def discard(self, key: K, its_id: str) -> None:
        """Remove an id from those under that key, if it is there."""
        ids = self._ids.get(key)
        if ids is not None:
            ids.discard(its_id)
            if not ids:
                del self._ids[key]
