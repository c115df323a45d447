"""The section `cluster` of a study: what workers on other machines are like. None of it decides an outcome."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from tombola.errors import InputError, nearest
from tombola.section import JsonSchema, Section
from tombola.studies.explaining import explain
from tombola.untrusted_yaml import read_yaml_file

MOST_WORKERS = 10_000
SHELL = ("directives", "environment")  # fields that become lines of a job's script; a study can't set them

EXAMPLES = {
    "workers": "4",
    "cores": "2",
    "memory": "4GB",
    "walltime": '"4:00:00"',
    "partition": "gpu",
    "account": "my-project",
    "interface": "ib0",
    "directives": '["--constraint=a100"]',
    "environment": '["module load cuda"]',
    "lease": "60",
}


class ClusterSettings(Section):
    """Workers on other machines.

    Args:
        workers: how many compute at a time, each one run or one stack of runs. None: as many as an address has, as many
            as this machine has cores for, or one job of SLURM.
        cores: of each worker, and threads of each run.
        memory: of each SLURM job, such as "4GB".
        gpus: of each SLURM job.
        walltime: of each SLURM job, as `sbatch --time` takes it. A run may take longer: it is saved and queued again.
        partition, account: as in `sbatch`.
        directives: further options of `sbatch`, such as "--constraint=a100". A study can't set them.
        environment: shell lines before a SLURM job's worker starts, such as "module load cuda". A study can't set them.
        interface: network interface between the jobs and this machine, such as "ib0".
        lease: seconds without a sign of life after which another worker takes over a work item.
    """

    workers: int | None = Field(default=None, ge=1, le=MOST_WORKERS)
    cores: int = Field(default=1, ge=1, le=1024)
    memory: str = Field(default="4GB", pattern=r"^[0-9]+ ?[kMGT]?B$")
    gpus: int = Field(default=0, ge=0, le=1)
    walltime: str = Field(default="1:00:00", pattern=r"^([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}$")
    partition: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.,-]+$")
    account: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    directives: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    interface: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    lease: float = Field(default=60.0, ge=1.0, le=86400.0)

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Leave out what a study can't set."""
        allowed = {name: schema for name, schema in fields["properties"].items() if name not in SHELL}
        return [fields | {"properties": allowed}]

    @field_validator("directives")
    @classmethod
    def _single_lines(cls, directives: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what would go beyond its line of a job's script."""
        for text in directives:
            if not text.isprintable() or not text.startswith("-"):
                raise ValueError(f"{text!r} is not one option of sbatch on one line, such as --constraint=a100")
        return directives

    def text(self, without: Iterable[str] = ()) -> str:
        """Return the settings in one line: all that are set, by a user or by default.

        Args:
            without: fields that mean nothing to the site.
        """
        parts = []
        for name, value in self.model_dump().items():
            if name not in without and value not in (None, ()):
                plain = list(value) if isinstance(value, tuple) else value
                parts.append(f"{name} {f'{plain:g}' if isinstance(plain, float) else plain}")
        return ", ".join(parts)


def read_cluster(path: Path, over: ClusterSettings | None = None) -> ClusterSettings:
    """Return the settings of a user's own file, which replace those of the study.

    Args:
        path: of a YAML file with the fields of `ClusterSettings`.
        over: the study's section.

    Raises:
        InputError: a field is unknown or has a wrong value; the message names it.
    """
    given = read_yaml_file(path, "safe")
    if not isinstance(given, dict):
        raise InputError(f"{path} has no settings of a cluster; write lines such as partition: gpu")
    if unknown := sorted(map(str, given.keys() - ClusterSettings.model_fields.keys())):
        raise InputError(f"{path}: unknown field {unknown[0]!r}{nearest(unknown[0], ClusterSettings.model_fields)}")
    before = over.model_dump(exclude_unset=True) if over else {}
    try:
        return ClusterSettings.model_validate(before | given)
    except ValidationError as error:
        details = error.errors()[0]
        field = str(details["loc"][0])
        fault = explain(error, ClusterSettings).splitlines()[0]
        if details["type"] == "string_pattern_mismatch":
            fault = f"{field}={details['input']!r} has another form"
        example = f"; write for example {field}: {EXAMPLES[field]}" if field in EXAMPLES else ""
        raise InputError(f"{path}: {fault}{example}") from None
