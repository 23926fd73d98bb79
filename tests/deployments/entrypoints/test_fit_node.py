"""One training on two nodes of a Job, here two processes: `python -m deployments.entrypoints.fit_node`."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.states import Pending, Scheduled

from deployments.entrypoints.fit_node import INDEX, RUN
from deployments.server.deploy import deploy_files
from infra.settings import PROJECT, Settings
from infra.training import TrainingUpdate
from model.data.manifest import DataVersion
from tasks.training.fit import describe_job, fetch_result
from tests.conftest import free_ports
from tests.support.training_case import short_training, small_data, train

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataVersion:
    return small_data(tmp_path_factory.mktemp("data"))


def config(**changes: Any) -> Any:
    return short_training(epochs=2, head_epochs=1, batch_size=7, **changes)


def started_run(key: str, data: DataVersion) -> Any:
    """A run of `fit/gpu` as a worker leaves it to the pods of its Job."""
    job = describe_job(key, data, config(num_nodes=2))
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("fit/gpu")
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"job": job.model_dump(mode="json")},
            # No worker of this server takes it.
            state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1)),
        )
        client.set_flow_run_state(run.id, Pending(), force=True)
    return run


def node(index: int, run_id: object, port: int) -> "subprocess.Popen[str]":
    place = {INDEX: str(index), RUN: str(run_id), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.entrypoints.fit_node"],
        env={**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def log_of(run_id: Any) -> list[str]:
    with get_client(sync_client=True) as client:
        return [line.message for line in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))]


def test_two_nodes_fit_one_network_as_one_node_does_and_both_write_to_the_log_of_the_run(
    prefect_server: Settings, data: DataVersion, tmp_path: Any
) -> None:
    asyncio.run(deploy_files(prefect_server))
    alone = train(data, config(), tmp_path / "alone")
    run = started_run("two-nodes", data)
    [port] = free_ports(1)
    nodes = [node(index, run.id, port) for index in (0, 1)]
    said = [process.communicate(timeout=300)[0] for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], said
    result = fetch_result("two-nodes", prefect_server)
    assert result is not None
    for here, there in zip(result.history, alone.history, strict=True):
        assert here.validation_loss == pytest.approx(there.validation_loss, rel=1e-4)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    assert state is not None
    assert state.is_completed()
    lines = log_of(run.id)
    updates = [TrainingUpdate.of_line(line) for line in lines]
    assert any(update.epoch.epoch == update.epoch.epochs == 2 and update.saved for update in updates if update.epoch)
    assert "[node 1] takes part." in lines
    assert "[node 1] is done." in lines


@pytest.mark.long
def test_a_node_that_loses_the_first_one_says_so_in_the_log_of_the_run(
    prefect_server: Settings, data: DataVersion
) -> None:
    asyncio.run(deploy_files(prefect_server))
    run = started_run("lost-node", data)
    [port] = free_ports(1)
    first, other = (node(index, run.id, port) for index in (0, 1))
    assert first.stdout is not None
    assert any('"epoch":{"epoch":0,"epochs":2' in line for line in first.stdout)
    first.kill()
    first.communicate()
    said, _ = other.communicate(timeout=200)
    assert other.returncode == 19, said
    assert any(line.startswith("[node 1] TrainingInterrupted: Rank 1 of 2 lost") for line in log_of(run.id))
