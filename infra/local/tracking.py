"""Experiment tracking of one machine: MLflow on SQLite, one run a training key."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY = "ahc.training_key"


class MlflowTracker:
    """An ExperimentTracker on MLflow. A training that is resumed goes on in its own run."""

    def __init__(self, store: str, artifacts: Path, ui: str) -> None:
        """Keep runs in the database `store`, files in `artifacts`; `ui` is where the MLflow UI answers."""
        self._store = store
        self._artifacts = artifacts
        self._ui = ui

    @property
    def _client(self) -> "MlflowClient":
        from infra.local.mlflow_client import client

        return client(self._store)

    def start(self, key: str, *, experiment: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = (
            found.experiment_id
            if found
            else self._client.create_experiment(experiment, artifact_location=(self._artifacts / experiment).as_uri())
        )
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
        experiment_id = self._client.get_run(run_id).info.experiment_id
        return f"{self._ui}/#/experiments/{experiment_id}/runs/{run_id}"
