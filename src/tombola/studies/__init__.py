"""Studies: what is to be found out, as a file, and the work that it needs."""

from tombola.studies.arms import ARMS
from tombola.studies.connectivity import Connectivity, Pair
from tombola.studies.loading import dump_study, load_study, preset_names, preset_text
from tombola.studies.plan import Plan, Row, make_plan
from tombola.studies.pruning import BackOff, Pruning
from tombola.studies.study import ArmSettings, Study
from tombola.studies.trial import Trial

__all__ = [
    "ARMS",
    "ArmSettings",
    "BackOff",
    "Connectivity",
    "Pair",
    "Plan",
    "Pruning",
    "Row",
    "Study",
    "Trial",
    "dump_study",
    "load_study",
    "make_plan",
    "preset_names",
    "preset_text",
]
