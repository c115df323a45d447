"""Studies: what is to be found out, as a file, and the jobs that it comes to."""

from tombola.studies.arms import ARMS
from tombola.studies.connectivity import Connectivity, Line, Pair
from tombola.studies.job import Job, MaskRule, Origin, Prune
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
    "Job",
    "Line",
    "MaskRule",
    "Origin",
    "Pair",
    "Plan",
    "Prune",
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
