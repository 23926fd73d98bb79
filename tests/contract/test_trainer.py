"""What every trainer keeps of its promise: here `PrefectTrainer`, on a real server whose pool starts processes."""

import asyncio
import os
import signal
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Failed

from deployments.server.deploy import deploy_files
from infra.config.trainers import load_trainer
from infra.errors import TrainingJobFailed
from infra.kubernetes.trainer import TAG, PrefectTrainer, _fail
from model.errors import GpuMemoryExhausted, SourceUnreadable
from model.faults import Fault
from tasks.training.fit import describe_job, fetch_result
from tests.support.training_case import short_training, small_data, train

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]
DEPLOYMENT = "fit/gpu"
EPOCHS = 20


@pytest.fixture(scope="module")
def trainer(prefect_server):
    """Its fitting processes compute with one thread each: sums of floats depend on how many there are."""

    async def deploy():
        await deploy_files(prefect_server)
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(DEPLOYMENT)
            variables = {"env": {"OMP_NUM_THREADS": "1"}}
            await client.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))

    asyncio.run(deploy())
    return PrefectTrainer(load_trainer("aks", prefect_server.trainers).model_copy(update={"hourly_price": 3600.0}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def client(trainer):
    with get_client(sync_client=True) as opened:
        yield opened


def config(**changes):
    return short_training(epochs=EPOCHS, head_epochs=1, early_stopping_patience=0, **changes)


def runs(client, key):
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[f"{TAG}{key}"])))


def process(client, key):
    return int(runs(client, key)[0].infrastructure_pid.rpartition(":")[2])


def test_a_training_that_is_stopped_and_killed_ends_with_the_metrics_of_one_that_was_not(
    trainer, client, data, prefect_server, tmp_path
):
    undisturbed = train(data, config(), tmp_path / "undisturbed")
    said, sent = [], []

    def see(update):
        said.append(update)
        # Each attempt is disturbed after its first epoch, until both signals were sent.
        attempt = sum("is started again" in item.text for item in said)
        if update.done is None and update.epoch is not None and not update.text and len(sent) == attempt < 2:
            sent.append((signal.SIGTERM, signal.SIGKILL)[attempt])
            os.kill(process(client, "disturbed"), sent[-1])

    trainer.train(describe_job("disturbed", data, config()), see)
    lines = [update.sentence for update in said if update.done is None]
    assert sent == [signal.SIGTERM, signal.SIGKILL]
    assert sum("The training was interrupted: " in line for line in lines) >= 2
    assert sum("is started again" in line for line in lines) >= 2
    assert any(line.startswith("Asked to stop: a checkpoint is kept") for line in lines)
    assert any(" Saved until then: Epoch " in line for line in lines)
    assert len(runs(client, "disturbed")) == 1
    assert any("EUR so far" in update.text for update in said if update.done is not None)
    result = fetch_result("disturbed", prefect_server)
    assert result is not None
    assert result.resumed_from_epoch is not None
    assert [report.epoch for report in result.history] == [report.epoch for report in undisturbed.history]
    for here, there in zip(result.history, undisturbed.history, strict=True):
        assert here.validation_loss == pytest.approx(there.validation_loss, abs=1e-4)


def test_a_cancelled_training_keeps_its_checkpoint(trainer, client, data, prefect_server):
    def see(update):
        if update.epoch is not None and update.epoch.epoch == 1:
            state = runs(client, "cancelled")[0].state
            if not state.is_cancelling() and not state.is_final():
                client.set_flow_run_state(runs(client, "cancelled")[0].id, Cancelling())

    with pytest.raises(TrainingJobFailed, match="was cancelled"):
        trainer.train(describe_job("cancelled", data, config(cache_limit_mb=1)), see)
    assert runs(client, "cancelled")[0].state.is_cancelled()
    assert (prefect_server.home / "training" / "cancelled" / "last.ckpt").exists()
    assert fetch_result("cancelled", prefect_server) is None


def test_a_run_that_goes_on_already_is_followed_and_its_error_is_known_by_name(trainer, client, data):
    gone = data.model_copy(update={"manifest_uri": "/nowhere/manifest.parquet"})
    job = describe_job("followed", gone, config())
    deployment = client.read_deployment_by_name(DEPLOYMENT)
    parameters = {"job": job.model_dump(mode="json")}
    client.create_flow_run_from_deployment(deployment.id, parameters=parameters, tags=[f"{TAG}followed"])
    said = []
    with pytest.raises(SourceUnreadable) as failed:
        trainer.train(job, said.append)
    assert SourceUnreadable.next_step not in str(failed.value)
    assert "followed" in said[0].text
    assert len(runs(client, "followed")) == 1


def ended_run(name, message):
    return FlowRun(flow_id=uuid4(), name="fit x", state=Failed(name=name, message=message))


def test_an_error_keeps_its_next_step_once():
    run = ended_run("GpuMemoryExhausted", f"Too little memory. {GpuMemoryExhausted.next_step}")
    fault = Fault.of(GpuMemoryExhausted("Too little memory."))
    with pytest.raises(GpuMemoryExhausted) as failed:
        _fail(run, "", fault)
    assert (str(failed.value), failed.value.next_step) == ("Too little memory.", GpuMemoryExhausted.next_step)
    with pytest.raises(TrainingJobFailed, match="whatever"):
        _fail(ended_run("Failed", "whatever"), "", None)


def test_a_run_that_left_no_record_or_an_older_one_is_known_by_the_name_of_its_state():
    with pytest.raises(SourceUnreadable, match="No manifest"):
        _fail(ended_run("SourceUnreadable", "No manifest."), "", Fault.of(GpuMemoryExhausted("Before.")))
    with pytest.raises(TrainingJobFailed, match="timed out"):
        _fail(ended_run("TimedOut", "It timed out."), "", Fault.of(GpuMemoryExhausted("Before.")))
