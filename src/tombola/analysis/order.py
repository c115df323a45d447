"""The order in which arms are shown."""

from __future__ import annotations

from collections.abc import Iterable

from tombola.studies.arms import ARMS

CONTROLS = ("-shuffled", "-reinit", "-shuffled-reinit")  # what a control's name ends in, after that of its arm


def in_order(arms: Iterable[str]) -> list[str]:
    """Return tombola's own arms first, each before its controls; then a user's arms by name."""

    places = {arm: number for number, arm in enumerate(ARMS)}

    def place(name: str) -> tuple[int, str, int, int, str]:
        curve, _, rewound = name.rpartition("@") if name.rpartition("@")[2].isdigit() else (name, "", "0")
        arm, control = of_control(curve)
        number = places.get(arm, len(places))
        return number, arm, CONTROLS.index(control) if control else -1, int(rewound), name

    return sorted({str(arm) for arm in arms}, key=place)


def of_control(name: str) -> tuple[str, str]:
    """Return the arm of a control, and which of CONTROLS it is.

    Of an arm that is not a control of one of tombola's arms, return its own name and "".
    """
    for control in sorted(CONTROLS, key=len, reverse=True):
        if name not in ARMS and (arm := name.removesuffix(control)) in ARMS:
            return arm, control
    return name, ""
