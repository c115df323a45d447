"""What an arm is to the arm that a study is about: a control, the same arm at another rewind, or another method."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import pandas as pd

from tombola.analysis.order import in_order, of_control
from tombola.studies.arms import ARMS

Role = Literal["control", "rewind", "other"]


def main_arm(arms: Sequence[str]) -> str:
    """Return the arm that a study is about: `ticket`, the first of its rewinds, or else the first arm."""
    return next((arm for arm in arms if base_of(arm) == "ticket"), arms[0])


def main_arm_of(rows: pd.DataFrame) -> str:
    """Return the main arm of a table with the columns `arm` and `level`; an arm of dense networks alone is none."""
    pruned = rows[rows["level"] > 0]
    return main_arm(in_order((rows if pruned.empty else pruned)["arm"]))


def base_of(arm: str) -> str:
    """Return the name of an arm without its rewind: "ticket" of "ticket@500"."""
    return split(arm)[0]


def split(arm: str) -> tuple[str, int | None]:
    """Return the name of an arm and its rewind: ("ticket", 500) of "ticket@500"; None where it names no rewind."""
    name, _, rewind = arm.rpartition("@")
    return (name, int(rewind)) if name and rewind.isdecimal() else (arm, None)


def role_of(arm: str, main: str, controls: Collection[str] | None = None) -> Role:
    """Return what `arm` is to `main`.

    Args:
        arm: another arm of the study.
        main: see `main_arm`.
            A control that starts from another rewind is a control of that rewind's arm: it is "rewind", too.
        controls: the study's controls, without their rewinds; by default tombola's own, by their names.
    """
    (name, rewind), (base, own) = split(arm), split(main)
    if name == base or (rewind != own and None not in (rewind, own)):
        return "rewind"
    known = _is_control(name) if controls is None else name in controls
    return "control" if known else "other"


def _is_control(name: str) -> bool:
    return ARMS[name].control if name in ARMS else bool(of_control(name)[1])
