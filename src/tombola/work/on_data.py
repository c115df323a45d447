"""What work has in common that needs a trial's network and data."""

from __future__ import annotations

from tombola.data import DataSettings
from tombola.networks import NetworkSettings
from tombola.tasks import TaskSettings
from tombola.work.spec import Spec


class OnData(Spec):
    """Work on the network, the data and the task of a study. `Trial.spec` fills in these fields.

    Args:
        network, data, seed, trial: as in the study; a data file is known by `data_code` instead of its path.
        task: what is learned, without options that change no result.
        network_code, data_code, task_code: fingerprints of a user's own network, data and task.
    """

    network: NetworkSettings
    data: DataSettings
    seed: int
    trial: int
    task: TaskSettings = TaskSettings()
    network_code: str = ""
    data_code: str = ""
    task_code: str = ""

    def codes(self) -> dict[str, str]:
        """Return the fingerprints of the user's own network, data and task."""
        return {"network": self.network_code, "data": self.data_code, "task": self.task_code}
