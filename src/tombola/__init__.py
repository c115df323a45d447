"""tombola finds winning lottery tickets: sparse subnetworks that train as well as the dense one.

>>> import tombola
>>> study = tombola.Study.load("demo", trials=1)
>>> results = tombola.run(study)                                    # doctest: +SKIP
>>> ticket = results.ticket(trial=0, level=7).build()               # doctest: +SKIP
"""

# Nothing is imported here that Python has not imported already, because `python -m tombola` runs this with the current
# folder first on the search path, and a stranger's folder may hold a typing.py.
import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tombola.errors import DataError, InputError, StoppedByUser, StoreError, TombolaError, WorkFailed
    from tombola.notebook import Results
    from tombola.pruning.mask import Mask
    from tombola.pruning.select import select
    from tombola.running.ticket import Ticket
    from tombola.session import rounds, run
    from tombola.studies.study import Study

__version__ = "0.2.0.dev0"

# Where each public name lives. They are imported when they are first used: `import tombola` needs no torch.
_HOMES = {
    "DataError": "tombola.errors",
    "InputError": "tombola.errors",
    "Mask": "tombola.pruning.mask",
    "Results": "tombola.notebook",
    "StoppedByUser": "tombola.errors",
    "StoreError": "tombola.errors",
    "WorkFailed": "tombola.errors",
    "Study": "tombola.studies.study",
    "Ticket": "tombola.running.ticket",
    "TombolaError": "tombola.errors",
    "rounds": "tombola.session",
    "run": "tombola.session",
    "select": "tombola.pruning.select",
}

__all__ = [
    "DataError",
    "InputError",
    "Mask",
    "Results",
    "StoppedByUser",
    "StoreError",
    "Study",
    "Ticket",
    "TombolaError",
    "WorkFailed",
    "rounds",
    "run",
    "select",
]


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'tombola' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
