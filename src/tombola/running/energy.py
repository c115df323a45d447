"""The energy that training takes, by codecarbon: measured where the machine can, else estimated from its load.

The carbon dioxide follows from it and from the country's mix of electricity, which only the machine's owner knows.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from tombola.errors import InputError
from tombola.extras import need
from tombola.training.loop import Record

COUNTRY = "TOMBOLA_COUNTRY"  # environment variable: the machine's country, as three letters of ISO 3166


def check_energy() -> None:
    """Check that energy can be measured here.

    Raises:
        InputError: codecarbon is not installed, or does not know the country.
    """
    need("codecarbon", "--energy")
    if country := os.environ.get(COUNTRY):
        from codecarbon.input import DataSource

        if country not in DataSource().get_global_energy_mix_data():
            raise InputError(
                f"{COUNTRY}={country!r} is not a country that codecarbon knows; give three capital letters such as "
                "DEU, or unset it"
            )


@contextlib.contextmanager
def metered(records: Sequence[Record], on: bool) -> Iterator[Callable[[], None]]:
    """Measure the energy of what this process does within; the function it gives writes it down in the records.

    With the country in the environment, it writes down the carbon dioxide too. Runs that are trained together share
    both equally. Like the seconds, they add up over interruptions; a run of which a part went by unmeasured has none,
    rather than too little.

    Args:
        records: of the runs, as they are before they are trained on.
        on: whether to measure at all.
    """
    country = os.environ.get(COUNTRY)
    for record in records:
        for name, measured in (("energy_kwh", on), ("co2_kg", on and bool(country))):
            if not measured:
                setattr(record, name, None)
            elif not record.history["iteration"]:
                setattr(record, name, 0.0)
    if not on:
        yield lambda: None
        return
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output import BaseOutput

    class Total(BaseOutput):
        found: Mapping[str, float | None] = MappingProxyType({"energy_kwh": None, "co2_kg": None})

        def out(self, total, delta) -> None:  # type: ignore[no-untyped-def]
            self.found = {"energy_kwh": total.energy_consumed, "co2_kg": total.emissions if country else None}

    logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it speaks before it has read its own `log_level`
    total = Total()
    counted = dict.fromkeys(total.found, 0.0)
    tracker = OfflineEmissionsTracker(
        country_iso_code=country or "USA",  # it asks for one; without ours, we leave its carbon alone
        tracking_mode="process",
        output_methods=[],
        output_handlers=[total],
        allow_multiple_runs=True,
        log_level="error",
    )

    def note() -> None:
        tracker.flush()
        # codecarbon keeps its errors to itself: where it could not measure, it has said nothing.
        for name, value in total.found.items():
            share = None if value is None else (value - counted[name]) / len(records)
            counted[name] = value or 0.0
            for record in records:
                before = getattr(record, name)
                setattr(record, name, None if share is None or before is None else before + share)

    tracker.start()
    try:
        yield note
    finally:
        tracker.stop()
