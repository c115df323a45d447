"""The energy that training takes, by codecarbon: measured where the machine can, else estimated from its load."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from tombola.extras import need
from tombola.training.loop import Record


def check_energy() -> None:
    """Check that energy can be measured here.

    Raises:
        InputError: codecarbon is not installed.
    """
    need("codecarbon", "--energy")


@contextlib.contextmanager
def metered(records: Sequence[Record], on: bool) -> Iterator[Callable[[], None]]:
    """Measure the energy of what this process does within; the function it gives writes it down in the records.

    Runs that are trained together share it equally. Like the seconds, it adds up over interruptions; a run of which
    a part went by unmeasured has none, rather than too little.

    Args:
        records: of the runs, as they are before they are trained on.
        on: whether to measure at all.
    """
    for record in records:
        if not on:
            record.energy_kwh = None
        elif not record.history["iteration"]:
            record.energy_kwh = 0.0
    if not on:
        yield lambda: None
        return
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output import BaseOutput

    class Total(BaseOutput):
        kwh: float | None = None

        def out(self, total, delta) -> None:  # type: ignore[no-untyped-def]
            self.kwh = total.energy_consumed

    logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it speaks before it has read its own `log_level`
    total, counted = Total(), 0.0
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",  # it asks, for the carbon that we don't ask for
        tracking_mode="process",
        output_methods=[],
        output_handlers=[total],
        allow_multiple_runs=True,
        log_level="error",
    )

    def note() -> None:
        nonlocal counted
        tracker.flush()
        # codecarbon keeps its errors to itself: where it could not measure, it has said nothing.
        share = None if total.kwh is None else (total.kwh - counted) / len(records)
        counted = total.kwh or 0.0
        for record in records:
            record.energy_kwh = None if share is None or record.energy_kwh is None else record.energy_kwh + share

    tracker.start()
    try:
        yield note
    finally:
        tracker.stop()
