"""Work that waits, and which of it can start. Each event costs as much as the items that it concerns, not as all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tombola.work import Item


class Waiting:
    """The items of a plan that are neither done nor under way.

    Of those that can start, the one with the longest chain of others behind it comes first.

    Args:
        items: that are not done, each after those that it needs.
    """

    def __init__(self, items: Sequence[Item]):
        depth: Counter[str] = Counter()
        for item in reversed(items):
            for parent in item.needs:
                depth[parent] = max(depth[parent], depth[item.id] + 1)
        ordered = sorted(items, key=lambda item: -depth[item.id])  # stable: else the study's order of arms
        self._items = {item.id: item for item in ordered}
        self._place = {item.id: place for place, item in enumerate(ordered)}
        self._first = 0  # the lowest place
        self._missing = {item.id: set(item.needs) & self._items.keys() for item in ordered}
        self._children: dict[str, list[str]] = defaultdict(list)
        for item in items:
            for parent in item.needs:
                self._children[parent].append(item.id)
        self._ready = [(place, key) for key, place in self._place.items() if not self._missing[key]]
        self._later: dict[str, float] = {}  # item -> when it may start, though nothing is missing

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    def ready(self, now: float) -> list[Item]:
        """Return the items that can start, in order.

        Args:
            now: as in `give_back`.
        """
        for key in [key for key, when in self._later.items() if when <= now]:
            del self._later[key]
            insort(self._ready, (self._place[key], key))
        return [self._items[key] for _, key in self._ready]

    def take(self, items: Iterable[Item]) -> None:
        """Start items that are ready."""
        for item in items:
            self._drop(item.id)

    def give_back(self, items: Sequence[Item], when: float = 0.0) -> None:
        """Let items wait again that were started, before all others.

        Args:
            items: in order.
            when: from when on they may start, on any clock.
        """
        for item in reversed(items):
            self._first -= 1
            self._items[item.id], self._place[item.id] = item, self._first
            self._missing[item.id] = set()
            self.postpone(item, when)

    def postpone(self, item: Item, when: float) -> None:
        """Let an item start from some time on that could start now."""
        self._drop_ready(item.id)
        self._later[item.id] = when

    def done(self, work_id: str) -> None:
        """Take note of a result: what has waited for it alone can start."""
        for child in self._children[work_id]:
            if child in self._items and work_id in self._missing[child]:
                self._missing[child].discard(work_id)
                if not self._missing[child]:
                    insort(self._ready, (self._place[child], child))

    def leave_out(self, work_ids: Iterable[str]) -> list[Item]:
        """Remove items; return those that did wait."""
        return [self._drop(key) for key in work_ids if key in self._items]

    def without(self, work_id: str) -> list[Item]:
        """Remove and return what can't start any more, because an item has no result."""
        lost, found = [work_id], []
        while lost:
            items = self.leave_out(self._children[lost.pop()])
            found += items
            lost += [item.id for item in items]
        return found

    def _drop(self, key: str) -> Item:
        self._drop_ready(key)
        self._later.pop(key, None)
        return self._items.pop(key)

    def _drop_ready(self, key: str) -> None:
        entry = self._place[key], key
        place = bisect_left(self._ready, entry)
        if self._ready[place : place + 1] == [entry]:
            del self._ready[place]
