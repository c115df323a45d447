"""The short answer of a study in words: a sentence, what proves it, and three numbers.

The report, the end of `tombola run` and notebooks show these words. Minus signs are hyphens, as a terminal needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tombola.analysis.answer import Answer, Judged, Kind
from tombola.analysis.connectivity import ERROR
from tombola.analysis.roles import base_of, split
from tombola.analysis.stability import Parting, settled
from tombola.analysis.verdicts import BIASED
from tombola.formatting import counted, counted_are, differences, margin_in_words, percent, plain, with_unit
from tombola.tables.captions import HEIGHTS
from tombola.tasks.metric import ACCURACY, Metric

NONE = "–"


def at_its_level(answer: Answer) -> str:
    """Return the verdict on the level of the answer, with its reason; "" without one."""
    at = answer.at
    return (
        "" if at is None else f"{share_of(at)} % of the weights: {at.verdict}. {at.reason[:1].upper()}{at.reason[1:]}."
    )


@dataclass(frozen=True)
class Number:
    """A large number: what it is, its value with its unit, and a short remark."""

    label: str
    value: str
    unit: str
    remark: str


def headline(answer: Answer) -> str:
    """Return the answer in one sentence."""
    text = HEADLINES[answer.kind](answer)
    return f"So far, {_lower(text)}" if answer.missing and (answer.at is not None or answer.partings) else text


def proof(answer: Answer) -> tuple[str, ...]:
    """Return what the sentence rests on, and what limits it, in short sentences."""
    remarks = [*PROOFS[answer.kind](answer)] if answer.kind in PROOFS else []
    if answer.kind in ("winning", "matching") and answer.at is not None and answer.at.dense_is_weak(answer.metric):
        by = with_unit(differences([abs(answer.at.difference)], answer.metric)[0].lstrip("+"), answer.metric)
        remarks.append(
            f"The dense network is {by} worse, so it is weak: check its learning rate, its budget and the scale of its "
            "inputs."
        )
    if answer.later_helps is not None:
        remarks.append(f"Rewinding later {'helps' if answer.later_helps else 'is not shown to help'}.")
    if answer.diverged:
        remarks.append(f"{counted(answer.diverged, 'run')} diverged.")
    if answer.missing:
        remarks.append(f"The study is unfinished: {counted_are(answer.missing, 'work item')} missing.")
    return tuple(remarks)


def numbers(answer: Answer) -> tuple[Number, ...]:
    """Return up to three numbers.

    They are density, difference to dense, and how much earlier training stops; or barriers of copies of the dense
    network: the first, the one of the answer, the last. There are none without a level or a barrier.
    """
    if answer.at is None:
        told = [answer.partings[0], settled(answer.partings), answer.partings[-1]] if answer.partings else []
        return tuple(_barrier(each) for each in dict.fromkeys(told) if each is not None)
    return _density(answer), _difference(answer, answer.at), _stop(answer.at)


def _is_ticket(answer: Answer) -> bool:
    return base_of(answer.arm) == "ticket"


def _subject(answer: Answer) -> str:
    """Return "A ticket with 8.7 % of the weights"."""
    assert answer.at is not None
    name, rewind = split(answer.arm)
    density = f"with {share_of(answer.at)} % of the weights"
    if name != "ticket":
        return f"Arm {plain(answer.arm)} {density}"
    return f"A ticket {density}" + ("" if rewind is None else f", rewound to iteration {rewind:,},")


def _no(answer: Answer) -> str:
    return "No ticket" if _is_ticket(answer) else f"No level of arm {plain(answer.arm)}"


def _as_good(metric: Metric, beside: str = "the dense network") -> str:
    return f"as accurate as {beside}" if metric == ACCURACY else f"as good as {beside} in {metric.words}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _losing(answer: Answer) -> str:
    if not _is_ticket(answer):
        return f"{_no(answer)} is {_as_good(answer.metric)}."
    where = f"all {answer.levels} levels" if answer.levels > 1 else "the only level"  # others may have diverged
    return f"No ticket was found: the dense network is better at {where} compared."


def _part_at(parting: Parting) -> str:
    return f"iteration {parting.rewind:,}" if parting.rewind else "the initialisation"


def _size(parting: Parting) -> str:
    height = HEIGHTS[parting.height]
    return f"{height.number(parting.mean)} {height.metric.difference_unit}".rstrip()


def _spread(parting: Parting) -> str:
    if not math.isfinite(parting.low):
        return "one trial: no interval"
    number = HEIGHTS[parting.height].number
    return f"95 % interval {number(parting.low)} to {number(parting.high)}"


def _is_stable(parting: Parting) -> str:
    return "stable" if parting.stable else "unstable"


def _connectivity(answer: Answer) -> str:
    found = settled(answer.partings)
    at = found or answer.partings[-1]
    start = "is not stable: copies that part at" if found is None else "is stable from"
    end = "" if found is None else ": copies that part there"
    an = "an" if at.height == ERROR else "a"
    return f"The dense network {start} {_part_at(at)}{end} have {an} {at.height} barrier of {_size(at)}."


def _barrier(parting: Parting) -> Number:
    height = HEIGHTS[parting.height]
    label, remark = f"{parting.height} barrier from {_part_at(parting)}", f"{_is_stable(parting)}; {_spread(parting)}"
    return Number(label, height.number(parting.mean), height.metric.difference_unit, remark)


def barriers_in_words(answer: Answer) -> tuple[str, ...]:
    """Return a sentence or two for each iteration at which copies of the dense network part."""
    return tuple(
        f"Copies of the dense network that part at {_part_at(each)} are {_is_stable(each)}. Their mean {each.height} "
        f"barrier is {_size(each)} ({_spread(each)}), over {counted(each.trials, 'trial')} and "
        f"{counted(each.pairs, 'pair')}."
        for each in answer.partings
    )


HEADLINES: dict[Kind, Callable[[Answer], str]] = {
    "no runs": lambda answer: "The study has no finished run yet.",
    "all diverged": lambda answer: "Every run so far diverged, so there are no results to report.",
    "no pair": lambda answer: "No pruned network can be compared with a dense one.",
    "connectivity": _connectivity,
    "one trial": lambda answer: f"In one trial, {_lower(_subject(answer))} was {_as_good(answer.metric)}.",
    "one trial, none": lambda answer: f"In one trial, {_lower(_no(answer))} was {_as_good(answer.metric)}.",
    "winning": lambda answer: f"{_subject(answer)} is {_as_good(answer.metric)}, and its training stops no later.",
    "matching": lambda answer: f"{_subject(answer)} is {_as_good(answer.metric)}.",
    "losing": _losing,
    "undecided": lambda answer: (
        f"{_no(answer)} is proven: "
        + (f"none of {answer.levels} levels is" if answer.levels > 1 else "the only level compared is not")
        + f" shown to be {_as_good(answer.metric)}."
    ),
}


def _basis(answer: Answer) -> str:
    assert answer.at is not None
    within = margin_in_words(answer.margin, answer.metric)
    return f"The verdict compares {counted(answer.at.n, 'trial')} with dense, within {within}."


def _winning(answer: Answer) -> list[str]:
    assert answer.at is not None
    stands = "It stands" if answer.at.stands else "It does not stand"
    found = [_basis(answer), f"{stands} after Holm's correction for the number of levels."]
    if answer.sparser is not None:
        found.append(f"With {percent(answer.sparser.density)} %, it is as good, but not shown to stop as early.")
    return found


def _more_trials(answer: Answer) -> str:
    assert answer.at is not None
    if answer.at.reason.endswith(BIASED):
        return "More trials can't decide this level, because runs of it diverged or are missing."
    if answer.missing:  # the study itself may have more trials than this level has so far
        return "More trials may decide it; finished trials stay."
    return f"More trials may decide it, such as trials={2 * answer.at.n}; finished trials stay."


def _stable(answer: Answer) -> list[str]:
    first = answer.partings[0]
    most = HEIGHTS[first.height].threshold(first.threshold)
    told = [f"Stable: the mean {first.height} barrier on the test examples is at most {most}."]
    if max(each.trials for each in answer.partings) == 1:
        told.append("One trial shows no variation between trials: this may be luck.")
    return [*told, "No pruned network is compared with the dense one."]


PROOFS: dict[Kind, Callable[[Answer], list[str]]] = {
    "connectivity": _stable,
    "one trial": lambda answer: ["One trial shows no variation between trials: this may be luck."],
    "one trial, none": lambda answer: ["One trial shows no variation between trials: this may be bad luck."],
    "winning": _winning,
    "matching": lambda answer: [
        _basis(answer),
        "It holds for this level alone, without correction for the number of levels.",
        "The level is not shown to stop as early as dense.",
    ],
    "losing": lambda answer: [_basis(answer)],
    "undecided": lambda answer: [_basis(answer), _more_trials(answer)],
}

SPARSEST: dict[Kind, str] = {
    "one trial": "sparsest level within the margin",
    "winning": "sparsest winning ticket",
    "matching": "sparsest matching level",
}


def share_of(at: Judged) -> str:
    """Return the percentage of weights of a level, or its range where trials differ: "5.0 to 90.0"."""
    if at.fewest < at.most:
        return f"{percent(at.fewest)} to {percent(at.most)}"
    return percent(at.density)


def _density(answer: Answer) -> Number:
    assert answer.at is not None
    density = share_of(answer.at)
    if answer.kind in SPARSEST:
        return Number("of the weights remain", density, "%", SPARSEST[answer.kind])
    remark = f"the next two numbers are of the best level, {density} % of the weights"
    return Number("levels shown as good as dense", f"0 of {answer.levels}", "", remark)


def _difference(answer: Answer, at: Judged) -> Number:
    metric = answer.metric
    texts = differences([at.difference, at.low, at.high], metric)
    interval = f"95 % interval {texts[1]} to {texts[2]}" if at.low < at.high else _without_interval(at)
    lower = "" if metric.better == "higher" else "; lower is better"
    return Number(f"{metric.words} against dense", texts[0], metric.difference_unit, interval + lower)


def _stop(at: Judged) -> Number:
    if not math.isfinite(at.stop):
        return Number("early stop", NONE, "", "not measured")
    share = abs(at.stop) / at.dense_stop if at.dense_stop > 0 else math.nan
    size, unit = (f"{100 * share:.0f}", "%") if math.isfinite(share) else (f"{abs(at.stop):,.0f}", "iterations")
    label = (
        "later stop than dense" if at.stop > 0 else "earlier stop than dense" if at.stop < 0 else "difference in stop"
    )
    interval = (
        f"95 % interval {at.stop_low:+,.0f} to {at.stop_high:+,.0f}"
        if at.stop_low < at.stop_high
        else _without_interval(at)
    )
    return Number(label, size, unit, f"{at.stop:+,.0f} iterations; {interval}")


def _without_interval(at: Judged) -> str:
    return "one trial: no interval" if at.n == 1 else "equal in all trials: no interval"
