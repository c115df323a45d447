"""Tasks: what is learned. How a batch becomes a loss, which metrics there are, and which one decides.

A user's own task is a subclass of `Task`; a study names it as `task: package.module:Class`.
"""

from tombola.tasks.classification import Classification
from tombola.tasks.language_model import LanguageModel
from tombola.tasks.metric import ACCURACY, ACCURACY_ALONE, Direction, Measures, Metric, metric_of
from tombola.tasks.multilabel import Multilabel
from tombola.tasks.regression import Regression
from tombola.tasks.segmentation import Segmentation
from tombola.tasks.settings import CLASSIFICATION, TASKS, TaskSettings
from tombola.tasks.task import Task, call, logits_in

__all__ = [
    "ACCURACY",
    "ACCURACY_ALONE",
    "CLASSIFICATION",
    "TASKS",
    "Classification",
    "Direction",
    "LanguageModel",
    "Measures",
    "Metric",
    "Multilabel",
    "Regression",
    "Segmentation",
    "Task",
    "TaskSettings",
    "call",
    "logits_in",
    "metric_of",
]
