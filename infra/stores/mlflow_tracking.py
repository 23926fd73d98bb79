"""Experiment tracking with MLflow, one run a training key: on SQLite, on a server, or in an Azure ML workspace."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.files import exclusive

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE: Final = "sqlite:///"

# MLflow's import would configure logging anew: that flushes Prefect's handler while it holds the lock of all loggers,
# and Prefect's threads need that lock to finish. A flow run then hangs for ever, now and then.
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")


@lru_cache(maxsize=4)
def client(tracking_uri: str) -> "MlflowClient":
    """The client of a store; the folder of a `sqlite:///` one is created."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    if not tracking_uri.startswith(SQLITE):
        return MlflowClient(tracking_uri, tracking_uri)
    database = Path(tracking_uri.removeprefix(SQLITE))
    # Two processes that migrate an empty database at the same time leave it broken.
    with exclusive(database.with_suffix(".lock")):
        opened = MlflowClient(tracking_uri, tracking_uri)
        opened.search_experiments(max_results=1)
    return opened


KEY = "ahc.training_key"


class MlflowTracker:
    """An ExperimentTracker on MLflow. A training that is resumed goes on in its own run."""

    def __init__(self, tracking_uri: str, link: Callable[[str, str], str], *, artifacts: Path | None = None) -> None:
        """Make a tracker.

        Args:
            tracking_uri: MLflow's, such as `sqlite:///FILE`, `https://SERVER` or a workspace's `azureml://...`.
            link: Where a person looks at the run, from the ids of its experiment and of itself.
            artifacts: Where the files of new experiments are kept; the server decides where this is missing.
        """
        self._tracking_uri = tracking_uri
        self._link = link
        self._artifacts = artifacts

    @property
    def _client(self) -> "MlflowClient":
        return client(self._tracking_uri)

    def start(self, key: str, *, experiment: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        experiment_id = self._experiment(experiment)
        runs = self._client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
        if runs:
            run_id: str = runs[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        created = self._client.create_run(experiment_id, tags={KEY: key, **tags})
        for name, value in parameters.items():
            self._client.log_param(created.info.run_id, name, value)
        return str(created.info.run_id)

    def log(self, run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def log_files(self, run_id: str, directory: Path) -> None:
        self._client.log_artifacts(run_id, str(directory))

    def end(self, run_id: str, *, succeeded: bool) -> None:
        self._client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")

    def link(self, run_id: str) -> str:
        return self._link(self._client.get_run(run_id).info.experiment_id, run_id)

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = (self._artifacts / name).as_uri() if self._artifacts else None
        return str(self._client.create_experiment(name, artifact_location=location))


def server_link(server: str) -> Callable[[str, str], str]:
    """Links into the UI of an MLflow server."""
    return lambda experiment_id, run_id: f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
