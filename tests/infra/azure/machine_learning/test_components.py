"""The training code published to the workspace: once for a version, and never changed under its name."""

import pytest
import yaml

from flows.publication import publication
from infra.azure.machine_learning.components import COMPONENT, DEFINITIONS, ENVIRONMENT, PIPELINE, AmlPublication
from infra.errors import AccessDenied, ConfigurationError, NotProvisioned, ServiceUnavailable
from infra.settings import PROJECT, Settings
from tests.support.azure.aml_workspace import IMAGE, client
from tests.support.azure.bench import calls

pytestmark = pytest.mark.azure


@pytest.fixture
def code(bench, cloud):
    return AmlPublication(cloud)


def writes(bench):
    return [call for call in calls(bench, "PUT", "/versions/") if call["status"] in (200, 201)]


def test_environment_component_and_pipeline_of_a_version_are_made_of_one_image(code, cloud):
    published = code.publish("20261124.1", IMAGE)
    assert [(item.kind, item.new) for item in published] == [
        ("environment", True),
        ("component", True),
        ("pipeline", True),
    ]
    assert all(item.version in item.link for item in published)
    workspace = client(cloud)
    assert workspace.environments.get(ENVIRONMENT, "20261124.1").image == f"crahcplatform.azurecr.io/training@{IMAGE}"
    component = workspace.components.get(COMPONENT, "20261124.1")
    assert component.environment.endswith(f"/environments/{ENVIRONMENT}/versions/20261124.1")
    assert component.code is None
    assert component.inputs["data"]["type"] == "uri_folder"
    pipeline = workspace.components.get(PIPELINE, "20261124.1")
    assert pipeline.jobs["fit"].component == f"{COMPONENT}:20261124.1"
    assert set(pipeline.inputs) == {"job", "data"}


def test_publishing_again_writes_nothing(bench, code):
    code.publish("1", IMAGE)
    before = len(writes(bench))
    assert not any(item.new for item in code.publish("1", f"crahcplatform.azurecr.io/training@{IMAGE}"))
    assert len(writes(bench)) == before == 3


def test_a_version_with_another_image_is_refused_and_stays(code, cloud):
    code.publish("1", IMAGE)
    with pytest.raises(ConfigurationError, match="is published already, with another image"):
        code.publish("1", "sha256:" + "b" * 64)
    assert client(cloud).environments.get(ENVIRONMENT, "1").image.endswith(IMAGE)


def test_a_publication_that_broke_off_is_completed(bench, code):
    bench.fault("forbidden", method="PUT", path=rf"components/{PIPELINE}/versions", times=1)
    with pytest.raises(AccessDenied):
        code.publish("1", IMAGE)
    assert [item.new for item in code.publish("1", IMAGE)] == [False, False, True]


def test_throttling_is_waited_out_and_an_outage_is_transient(bench, code, monkeypatch):
    bench.fault("throttle", path="environments/", times=2)
    code.publish("1", IMAGE)
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault("outage", path="environments/")
    with pytest.raises(ServiceUnavailable):
        code.publish("2", IMAGE)


@pytest.mark.parametrize("image", ["training:stable", "sha256:abc", "crahcplatform.azurecr.io/training"])
def test_an_image_is_named_by_its_digest(bench, code, image):
    with pytest.raises(ConfigurationError, match="not named by its digest"):
        code.publish("1", image)
    assert not writes(bench)


def test_a_version_that_azure_ml_would_refuse_is_told_before(bench, code):
    with pytest.raises(ConfigurationError, match="no version for Azure ML"):
        code.publish("build 7", IMAGE)
    assert not writes(bench)


def test_a_workspace_that_is_gone_is_told(bench, code):
    gone = {"error": {"code": "ResourceNotFound", "message": "The Resource 'mlw-ahc-platform' was not found."}}
    bench.fault(path="workspaces/mlw-ahc-platform", status=404, body=gone, times=-1)
    with pytest.raises(NotProvisioned, match="mlw-ahc-platform"):
        code.publish("1", IMAGE)


@pytest.mark.parametrize("name", ["fit.yaml", "training.yaml"])
def test_every_definition_is_valid_for_azure_ml(name):
    from azure.ai.ml import load_component

    reference = {"fit.yaml": {"environment": "azureml:e:1"}, "training.yaml": {"jobs.fit.component": "azureml:c:1"}}
    loaded = load_component(DEFINITIONS / name, params_override=[{"version": "1"}, reference[name]])
    assert loaded._validate().passed


def test_the_component_runs_a_module_of_the_image():
    definition = yaml.safe_load((DEFINITIONS / "fit.yaml").read_text())
    program, flag, module, *_ = definition["command"].split()
    assert (program, flag) == ("python", "-m")
    assert (PROJECT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_publishes_and_elsewhere_says_that_there_is_nowhere_to_publish_to(bench, cloud, monkeypatch):
    monkeypatch.setattr("tasks.operations.publication.get_settings", lambda: cloud)
    first = publication("1", IMAGE)
    assert (first.new, publication("1", IMAGE).new) == (True, False)
    assert set(first.links) == {f"environment {ENVIRONMENT}", f"component {COMPONENT}", f"pipeline {PIPELINE}"}
    monkeypatch.setattr("tasks.operations.publication.get_settings", lambda: Settings(backend="local"))
    state = publication("1", IMAGE, return_state=True)
    assert state.name == "ConfigurationError"
    assert "AHC_BACKEND=azure" in state.message
