"""Who runs the rows: this process, one after another, or Ray, several at once. Records come as rows finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ossicle.errors import ConfigError, UserError, require, suggest
from ossicle.study.budget import Cost
from ossicle.study.plan import Job
from ossicle.study.rows import Place, run_job

Work = Sequence[tuple[Job, Cost]]


def serial(work: Work, place: Place, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the record of each row as it finishes, in the order of the plan."""
    for job, cost in work:
        tell(f"row '{job.row.name}', seed {job.seed}")
        yield run_job(job, cost, place, tell)


def by_ray(work: Work, place: Place, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the records of rows that Ray runs side by side, each as it finishes; a GPU each where there are some.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = require("ray", "ray")
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False)
    try:
        resources = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
        remote = ray.remote(**resources)(run_job)
        waiting = [remote.remote(job, cost, place, _quiet) for job, cost in work]
        while waiting:
            (done, *_), waiting = ray.wait(waiting, num_returns=1)
            record = _record(ray, done)
            tell(f"row '{record['row']}', seed {record['seed']}: finished")
            yield record
    finally:
        if ours:
            ray.shutdown()


def _record(ray: Any, done: Any) -> dict[str, Any]:
    """Return a row's record, or raise what its process raised as if it had been raised here."""
    try:
        record: dict[str, Any] = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return record


def _quiet(text: str) -> None:
    """Say nothing: another process speaks."""


ENGINES: dict[str, Callable[[Work, Place, Callable[[str], None]], Iterator[dict[str, Any]]]] = {
    "local": serial,
    "ray": by_ray,
}


def engine(name: str) -> Callable[[Work, Place, Callable[[str], None]], Iterator[dict[str, Any]]]:
    """Return an engine by name.

    Raises:
        ConfigError: No such engine.
    """
    if name not in ENGINES:
        raise ConfigError(f"--engine {name}: unknown; {suggest(name, list(ENGINES))}")
    return ENGINES[name]
