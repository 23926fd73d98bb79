"""Trainings as Azure ML jobs: submitted once, followed through what can happen to them, cancelled, started again."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading

import httpx
import pytest
import yaml

from infra.azure.machine_learning import trainer as module
from infra.azure.machine_learning.trainer import AmlTrainer
from infra.azure.machine_learning.training_jobs import PUBLISH
from infra.backend import backend
from infra.errors import NotProvisioned, QuotaExceeded, ServiceUnavailable, TrainingJobFailed
from infra.settings import PROJECT
from infra.stores.training_folder import INTERRUPTED, Outcome, TrainingFolder
from model.errors import GpuMemoryExhausted, TrainingDiverged, TrainingInterrupted
from model.faults import Fault
from model.values import EpochReport
from tests.conftest import settings_environment
from tests.support.azure.aml_workspace import COMPUTE, JOB, KEY, Machines, described, prepare, submitted
from tests.support.azure.bench import calls
from tests.support.azure.pods import run_in_pod
from tests.support.training_case import small_data

pytestmark = pytest.mark.azure
DETAILS = r"history/.*/details"
EPOCH = EpochReport(
    epoch=1,
    epochs=3,
    train_loss=0.5,
    validation_loss=0.4,
    validation_accuracy=0.9,
    validation_macro_recall=0.9,
    learning_rate=1e-3,
    images_per_second=120,
    seconds=4,
)


class Seen:
    """What the run was told."""

    def __init__(self):
        self.updates = queue.Queue()
        self.all = []

    def __call__(self, update):
        self.all.append(update)
        self.updates.put(update)

    def texts(self, level=None):
        return [item.sentence for item in self.all if level is None or item.level == level]

    def until(self, text):
        """Wait for an update with this part."""
        while text not in self.updates.get(timeout=120).sentence:
            pass


@pytest.fixture
def azure(bench, cloud, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    prepare(cloud)
    return cloud


@pytest.fixture
def see():
    return Seen()


@pytest.fixture
def folder(azure):
    return TrainingFolder(f"{backend(azure).data_root()}/training/{KEY}")


def fails(bench, message, code="UserError", attempt=""):
    bench.lifecycle(
        "aml-job", f"{attempt}$", plan=["Queued", "Running", "Failed"], error={"code": code, "message": message}
    )


def test_a_job_is_submitted_with_the_published_code_and_followed_to_its_end(bench, azure, see, folder):
    log = [
        {"text": "Epoch 1 of 3", "done": 0.25},
        {"text": "A sentence of an older version"},
        {"epoch": EPOCH.model_dump(), "saved": True},
        {"text": "The state is on this machine only", "level": "warning"},
    ]
    bench.lifecycle("aml-job", plan=[*["Queued"] * 4, "Running", "Completed"])
    bench.admin("logs", {"content": "\n".join(["A library says hello", *map(json.dumps, log)])})
    AmlTrainer(described(), azure).train(JOB, see)
    [job] = submitted(bench)
    assert job["command"] == "python -m deployments.entrypoints.training_job --job ${{inputs.job}}"
    assert job["environmentId"].endswith("/environments/ahclassifier_training/versions/1")
    assert job["computeId"].endswith(f"/computes/{COMPUTE}")
    assert job["experimentName"] == "colours"
    assert job["inputs"]["job"]["value"] == folder.job_url
    assert job["inputs"]["data"]["uri"].endswith("/data/colours/versions/0123456789abcdef")
    assert job["inputs"]["data"]["mode"] == "Direct"
    assert job["tags"] == {"ahc.training_key": KEY, "component": "ahclassifier_fit:1"}
    assert job["environmentVariables"]["AHC_BACKEND"] == "azure"
    assert job["environmentVariables"]["AZURE_CLIENT_ID"]
    assert job.get("distribution") is None
    assert folder.job() == JOB
    assert f"https://ml.azure.com/runs/{KEY}-1?wsid=" in see.texts()[0]
    assert [f"{KEY}-1 is {state}." in see.texts() for state in ("Queued", "Running", "Completed")] == [True] * 3
    assert see.texts().count("A library says hello") == 1
    assert see.texts().count("A sentence of an older version") == 1
    assert "Epoch 1 of 3: validation accuracy 0.900, loss 0.400, 120 images/s" in see.texts()
    assert [item.epoch for item in see.all if item.saved] == [EPOCH]
    assert [item.done for item in see.all if item.done is not None] == [0.25]
    assert see.texts("warning") == ["The state is on this machine only"]


def test_several_nodes_and_processes_train_by_azure_mls_pytorch_distribution(bench, azure, see):
    target = described(instance_type="gpu", processes_per_node=4, version="1")
    AmlTrainer(target, azure).train(JOB.model_copy(update={"nodes": 2}), see)
    [job] = submitted(bench)
    assert job["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 4}
    assert (job["resources"]["instanceCount"], job["resources"]["instanceType"]) == (2, "gpu")
    assert job["resources"]["shmSize"] == "8g"


def test_the_newest_component_is_used_unless_a_version_is_named(bench, azure, see):
    prepare(azure, version="2")
    AmlTrainer(described(), azure).train(JOB, see)
    AmlTrainer(described(version="1"), azure).train(JOB.model_copy(update={"key": "training-other"}), see)
    assert [job["environmentId"].rpartition("/")[2] for job in submitted(bench)] == ["2", "1"]


def test_who_comes_back_follows_the_job_that_runs_and_needs_none_where_it_worked(bench, azure, see, folder):
    bench.lifecycle("aml-job", plan=["Queued", *["Running"] * 9, "Completed"])

    class Gone(Exception):
        pass

    def dies(update):
        raise Gone

    with pytest.raises(Gone):
        AmlTrainer(described(), azure).train(JOB, dies)
    AmlTrainer(described(), azure).train(JOB, see)
    assert f"{KEY}-1 is Running." in see.texts()
    folder.end(Outcome(attempt=f"{KEY}-1"))
    AmlTrainer(described(), azure).train(JOB, see)
    assert len(submitted(bench)) == 1
    assert not calls(bench, "POST", "/cancel")


def test_a_training_whose_files_are_gone_is_made_again(bench, azure, see):
    AmlTrainer(described(), azure).train(JOB, see)
    AmlTrainer(described(), azure).train(JOB, see)
    assert len(submitted(bench)) == 2


def test_what_the_job_died_of_is_the_error_of_the_run(bench, azure, see, folder):
    fails(bench, "Execution failed. User process 'python' exited with status code 18.")
    folder.end(
        Outcome(attempt=f"{KEY}-1", fault=Fault.of(GpuMemoryExhausted("The GPU has 16 GB.", next_step="Halve it.")))
    )
    with pytest.raises(GpuMemoryExhausted, match="The GPU has 16 GB") as caught:
        AmlTrainer(described(), azure).train(JOB, see)
    assert caught.value.next_step == "Halve it."


def test_the_exit_code_tells_where_the_job_left_no_word(bench, azure, see, folder):
    folder.end(Outcome(attempt=f"{KEY}-0", fault=Fault.of(TrainingDiverged("Of another attempt."))))
    bench.admin("logs", {"content": "torch.OutOfMemoryError: CUDA out of memory\n"})
    fails(bench, "Execution failed. User process 'python' exited with status code 18. Please check log file.")
    with pytest.raises(GpuMemoryExhausted, match="CUDA out of memory") as caught:
        AmlTrainer(described(), azure).train(JOB, see)
    assert caught.value.next_step == GpuMemoryExhausted.next_step


def test_an_unknown_end_is_told_with_the_last_lines_of_the_log(bench, azure, see):
    bench.admin("logs", {"content": "Traceback\nModuleNotFoundError: No module named 'deployments'\n"})
    fails(bench, "Execution failed. User process 'python' exited with status code 1.")
    with pytest.raises(TrainingJobFailed, match="No module named 'deployments'") as caught:
        AmlTrainer(described(), azure).train(JOB, see)
    assert caught.value.process_exit_code == 1


def test_a_rerun_after_a_failure_is_a_new_attempt(bench, azure, see):
    fails(bench, "Execution failed.", attempt="-1")
    with pytest.raises(TrainingJobFailed):
        AmlTrainer(described(), azure).train(JOB, see)
    AmlTrainer(described(), azure).train(JOB, see)
    assert f"{KEY}-2 is Completed." in see.texts()


def test_a_quota_is_told_as_one(bench, azure, see):
    fails(bench, "The requested VM size exceeds the quota of this region.", code="InsufficientVCPUQuota")
    with pytest.raises(QuotaExceeded, match="exceeds the quota"):
        AmlTrainer(described(), azure).train(JOB, see)


def test_a_job_that_somebody_cancels_in_azure_ml_ends_the_run(bench, azure, see):
    bench.lifecycle("aml-job", plan=["Queued", "Running", "Canceled"])
    with pytest.raises(TrainingJobFailed, match="cancelled in Azure ML"):
        AmlTrainer(described(), azure).train(JOB, see)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("UserError", "The job was preempted: its low priority node was reclaimed."),
        ("UserError", "Pod training-1 was evicted: node is not ready. Process exited with status code 137."),
        ("UserError", f"User process exited with status code {INTERRUPTED}."),
        ("SystemError", "Failed to pull the runtime."),
    ],
)
def test_a_lost_node_is_an_interruption_and_no_failure(bench, azure, see, code, message):
    fails(bench, message, code=code, attempt="-1")
    AmlTrainer(described(), azure).train(JOB, see)
    assert len(submitted(bench)) == 2
    [told] = see.texts("warning")
    assert told.endswith("It is started again and goes on at its last checkpoint.")


def test_an_interruption_that_comes_again_and_again_ends_the_run(bench, azure, see, monkeypatch):
    monkeypatch.setattr(module, "INTERRUPTIONS", 2)
    fails(bench, "The job was preempted.")
    with pytest.raises(TrainingJobFailed, match="interrupted 3 times"):
        AmlTrainer(described(), azure).train(JOB, see)
    assert len(submitted(bench)) == 3


def test_a_job_that_azure_ml_itself_starts_again_is_told_as_interrupted(bench, azure, see):
    bench.lifecycle("aml-job", plan=["Queued", "Running", "Queued", "Running", "Completed"])
    AmlTrainer(described(), azure).train(JOB, see)
    assert see.texts("warning") == [f"The node of {KEY}-1 was taken away; Azure ML starts it again on another one."]
    assert len(submitted(bench)) == 1


def test_a_job_that_does_not_respond_is_replaced(bench, azure, see, monkeypatch):
    monkeypatch.setattr(module, "SILENT_SECONDS", 0)
    bench.lifecycle("aml-job", "-1$", plan=["Queued", "Running", "NotResponding", "NotResponding", "NotResponding"])
    AmlTrainer(described(), azure).train(JOB, see)
    assert calls(bench, "POST", f"{KEY}-1/cancel")
    assert f"{KEY}-2 is Completed." in see.texts()


def test_an_outage_in_the_middle_is_waited_out_and_told_once(bench, azure, see, monkeypatch):
    # The SDK's own retries wait, and so does this test otherwise.
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.lifecycle("aml-job", hold=True)
    error = []
    follower = threading.Thread(target=lambda: _kept(error, AmlTrainer(described(), azure), see))
    follower.start()
    see.until("is Queued")
    bench.fault("outage", path=DETAILS)
    see.until("runs on, but Azure ML doesn't say how")
    bench.clear_faults()
    bench.fault("throttle", path=DETAILS, times=2)
    bench.lifecycle("aml-job", hold=False)
    follower.join(120)
    assert not error
    assert f"{KEY}-1 is Completed." in see.texts()
    assert len(see.texts("warning")) == 1
    assert len(submitted(bench)) == 1


def _kept(error, trainer, see):
    try:
        trainer.train(JOB, see)
    except BaseException as caught:
        error.append(caught)


def test_an_outage_that_lasts_is_left_to_the_next_attempt(bench, azure, see, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 0)
    bench.fault("outage", path=DETAILS)
    with pytest.raises(ServiceUnavailable, match=f"{KEY}-1"):
        AmlTrainer(described(), azure).train(JOB, see)
    assert not calls(bench, "POST", "/cancel")


def test_an_answer_to_the_submission_that_was_lost_leaves_one_job(bench, azure, see):
    bench.fault(method="PUT", path=rf"jobs/{KEY}-1", reset="after")
    AmlTrainer(described(), azure).train(JOB, see)
    assert len(submitted(bench)) == 1


def test_code_that_is_not_published_is_told_with_what_publishes_it(bench, azure, see):
    for target in (described(component="nobodys"), described(version="9")):
        with pytest.raises(NotProvisioned, match="has no component") as caught:
            AmlTrainer(target, azure).train(JOB, see)
        assert caught.value.next_step == PUBLISH
    assert not submitted(bench)


def test_a_compute_that_is_not_there_is_told_by_name(bench, azure, see):
    target = described().model_copy(update={"azure_ml": described().azure_ml.model_copy(update={"compute": "gpus"})})
    with pytest.raises(NotProvisioned, match="no compute `gpus`"):
        AmlTrainer(target, azure).train(JOB, see)
    assert not submitted(bench)


def test_the_exit_code_of_an_interruption_is_that_of_its_error():
    assert TrainingInterrupted.exit_code == INTERRUPTED


class Follower:
    """A flow run that follows the job, in a process of its own."""

    def __init__(self, settings, api_url):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AHC_", "PREFECT_"))}
        own = {**settings_environment(settings), "PREFECT_API_URL": api_url, "PYTHONPATH": str(PROJECT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.azure.followed_flow"],
            env={**inherited, **own, "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false"},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self.process.stdout:
            if "is Queued" in line:
                break

    def end(self, number):
        self.process.send_signal(number)
        self.process.communicate(timeout=120)
        assert self.process.returncode != 0


def test_a_killed_run_leaves_its_job_to_the_next_and_a_cancelled_one_cancels_it(bench, azure, prefect_server):
    api = prefect_server.prefect_api_url
    bench.lifecycle("aml-job", hold=True)
    Follower(azure, api).end(signal.SIGKILL)
    Follower(azure, api).end(signal.SIGTERM)
    assert not calls(bench, "POST", "/cancel")
    cancelled = Follower(azure, api)
    wanted = {"flows": {"name": {"any_": ["following"]}}, "sort": "START_TIME_DESC", "limit": 1}
    [run] = httpx.post(f"{api}/flow_runs/filter", json=wanted).json()
    httpx.post(f"{api}/flow_runs/{run['id']}/set_state", json={"state": {"type": "CANCELLING"}, "force": True})
    cancelled.end(signal.SIGTERM)
    assert [call["status"] for call in calls(bench, "POST", f"{KEY}-1/cancel")] == [200]
    assert len(submitted(bench)) == 1


@pytest.mark.timeout(600)
def test_the_stage_train_gets_its_network_from_a_job_whose_first_node_is_taken_away(
    bench, azure, prefect_server, tmp_path
):
    data = small_data(tmp_path / "data")
    (tmp_path / "data.json").write_text(data.model_dump_json())
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "azure-ml.yaml").write_text(
        yaml.safe_dump(described().model_dump(mode="json", exclude_none=True))
    )
    settings = azure.model_copy(
        update={
            "home": tmp_path / "run",
            "trainer": "azure-ml",
            "trainers": tmp_path / "trainers",
            "mlflow_tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
        }
    )

    def first_node_goes_after_an_epoch(name, log):
        return name.endswith("-1") and '"epoch":{"epoch":1,"epochs":2' in log

    with Machines(bench, settings, tmp_path / "machines", first_node_goes_after_an_epoch) as machines:
        result = run_in_pod(
            settings, prefect_server.prefect_api_url, "tests.support.azure.trained_flow", tmp_path / "data.json"
        )
    assert [name.rpartition("-")[2] for name in machines.ended] == ["1", "2"]
    assert result["epochs"] == 2
    assert result["resumed_from_epoch"] == 1
    assert len(result["history"]) >= 2
    assert result["directory"].startswith("https://stahcplatform.blob.core.windows.net/models/folders/training/")

    from infra.stores.mlflow_tracking import KEY as TRAINING_KEY
    from infra.stores.mlflow_tracking import client as mlflow_client

    tracked = mlflow_client(settings.mlflow_tracking_uri)
    run = tracked.get_run(result["tracking_run"])
    assert run.info.status == "FINISHED"
    assert len(tracked.get_metric_history(run.info.run_id, "validation_accuracy")) >= 2
    assert submitted(bench)[0]["tags"][TRAINING_KEY] == run.data.tags[TRAINING_KEY]
