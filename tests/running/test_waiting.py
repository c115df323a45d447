"""Which work can start: the same as a plain look at all items each time."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from tombola.running.waiting import Waiting
from tombola.work import Item, Spec


class Step(Spec):
    kind: ClassVar[str] = "step"

    number: int
    before: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        return self.before


def plan(parents: list[set[int]]) -> list[Item]:
    items: list[Item] = []
    for number, chosen in enumerate(parents):
        before = tuple(items[parent].id for parent in sorted(chosen) if parent < number)
        items.append(Item(Step(number=number, before=before), str(number)))
    return items


class Plain:
    """The rule, item by item: what was given back first, then the one with the longest chain behind it."""

    def __init__(self, items: list[Item]):
        depth = {item.id: 0 for item in items}
        for item in reversed(items):
            for parent in item.needs:
                depth[parent] = max(depth[parent], depth[item.id] + 1)
        self.waiting = sorted(items, key=lambda item: -depth[item.id])
        self.done: set[str] = set()
        self.later: dict[str, float] = {}

    def ready(self, now: float) -> list[Item]:
        can = [item for item in self.waiting if self.done.issuperset(item.needs)]
        return [item for item in can if self.later.get(item.id, 0.0) <= now]

    def without(self, work_id: str) -> set[str]:
        lost = {work_id}
        for item in sorted(self.waiting, key=lambda item: int(item.label)):
            if lost & set(item.needs):
                lost.add(item.id)
        self.waiting = [item for item in self.waiting if item.id not in lost]
        return lost - {work_id}


PARENTS = st.lists(st.sets(st.integers(0, 11), max_size=3), min_size=1, max_size=12)
FATES = st.lists(st.sampled_from(["done", "lost", "back", "later"]), min_size=1, max_size=60)


@given(PARENTS, FATES)
def test_what_can_start_is_what_a_plain_look_finds(parents: list[set[int]], fates: list[str]) -> None:
    items = plan(parents)
    waiting, plain = Waiting(items), Plain(items)
    for now, fate in enumerate(fates):
        ready = waiting.ready(now)
        assert ready == plain.ready(now)
        assert {item.id for item in waiting} == {item.id for item in plain.waiting}
        assert len(waiting) == len(plain.waiting)
        if not ready:
            continue
        waiting.take(ready[:1])
        plain.waiting.remove(ready[0])
        if fate == "done":
            waiting.done(ready[0].id)
            plain.done.add(ready[0].id)
        elif fate == "lost":
            assert {item.id for item in waiting.without(ready[0].id)} == plain.without(ready[0].id)
        else:
            when = now + 3.0 if fate == "later" else 0.0
            waiting.give_back(ready[:1], when)
            plain.waiting.insert(0, ready[0])
            plain.later[ready[0].id] = when


def test_items_are_left_out_once() -> None:
    items = plan([set(), {0}, {1}])
    waiting = Waiting(items)
    assert waiting.leave_out({items[1].id, "unknown"}) == [items[1]]
    assert waiting.leave_out({items[1].id}) == []
    assert waiting.without(items[1].id) == [items[2]]
    assert waiting.ready(0.0) == [items[0]]


def test_work_whose_parents_are_done_elsewhere_can_start() -> None:
    first, second = plan([set(), {0}])
    waiting = Waiting([replace(second)])
    assert [item.label for item in waiting.ready(0.0)] == [second.label]
    assert first.id in second.needs
