"""Versions shared to an Azure ML registry: once, whole, by digest, whatever Azure does meanwhile."""

import logging
import os
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime

import pytest
import yaml
from azure.core.exceptions import ResourceNotFoundError
from prefect.artifacts import Artifact

from infra.azure.access.clients import resource_client
from infra.azure.access.roles import what_to_grant
from infra.azure.machine_learning.registry import join_tags
from infra.azure.machine_learning.shared_models import API_VERSION, AmlSharedModels
from infra.azure.storage.blobs import blob_service
from infra.backend import release_target
from infra.config.environments import load_environment
from infra.errors import AccessDenied, ConfigurationError, NotProvisioned, PlatformError, ServiceUnavailable
from infra.ports import RegisteredModel
from infra.settings import PROJECT, get_settings
from tasks.release.share_model import promote
from tasks.release.targets import environment_file
from tests.conftest import settings_environment
from tests.support.azure.bench import SUBSCRIPTION, azure_settings, calls
from tests.support.azure.small_platform import deploy, make_model_registry, provision
from tests.support.released import in_a_run

pytestmark = pytest.mark.azure

REGISTRY = "mlr-ahc"
KIND = "Microsoft.MachineLearningServices/registries"
REGISTRY_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ahc-platform/providers/{KIND}/{REGISTRY}"
VERSION = f"registries/{REGISTRY}/models/food/versions/3"
ANOTHER_SUBSCRIPTION = "99999999-2222-3333-4444-555555555555"
FILES = {"model.onnx": "weights", "bundle.json": "{}", "golden/red.png": "pixels"}


def environments(tmp_path, **azure):
    folder = tmp_path / "environments"
    folder.mkdir(exist_ok=True)
    content = {"name": "test", "description": "For tests.", "port_offset": 0, "azure": azure}
    (folder / "test.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture
def settings(bench, tmp_path):
    settings = azure_settings(tmp_path / "home", environments=environments(tmp_path, model_registry=REGISTRY))
    provision(settings)
    make_model_registry(REGISTRY)
    bench.admin("calls", method="DELETE")
    return settings


@pytest.fixture
def shared(settings):
    return release_target("test", settings).shared_models()


@pytest.fixture
def bundle(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "bundle"


def model(digest: str = "aa", **tags: str) -> RegisteredModel:
    return RegisteredModel(
        name="food", version=3, digest=digest, uri="azureml://x", created=datetime.now(UTC), tags=tags
    )


def puts(bench):
    return [call["status"] for call in calls(bench, "PUT", url=VERSION)]


def uploads(bench):
    return [call for call in calls(bench, "PUT", url="/pending-") if call["status"] == 201]


def stored() -> dict:
    """What the registry says of the version."""
    return (
        resource_client(SUBSCRIPTION)
        .resources.get_by_id(REGISTRY_ID + "/models/food/versions/3", API_VERSION)
        .properties
    )


def files_there() -> dict[str, str]:
    """The files of the folder that the registry's version names."""
    account, _, rest = stored()["modelUri"].removeprefix("https://").partition(".")
    container, _, folder = rest.partition("/")[2].partition("/")
    client = blob_service(account).get_container_client(container)
    names = [blob.name for blob in client.list_blobs(name_starts_with=f"{folder}/")]
    return {name.removeprefix(f"{folder}/"): client.download_blob(name).readall().decode() for name in names}


def test_a_version_is_shared_once_with_its_files_tags_and_digest(bench, shared, bundle):
    long = "a reason " * 60
    link = shared.share(model(verdict="promote", verdict_reason=long), bundle)
    assert link == f"https://ml.azure.com/registries/{REGISTRY}/models/food/version/3"
    assert files_there() == FILES
    version = stored()
    assert (version["modelType"], version["properties"]) == ("custom_model", {"digest": "aa"})
    assert join_tags(version["tags"]) == {"verdict": "promote", "verdict_reason": long}
    assert len(uploads(bench)) == len(FILES)
    bench.admin("calls", method="DELETE")
    assert shared.share(model(), bundle) == link
    assert bench.calls(url=VERSION)
    assert {call["method"] for call in bench.calls()} == {"GET"}


def test_another_digest_under_the_same_number_is_refused_and_stays(bench, shared, bundle):
    shared.share(model(), bundle)
    with pytest.raises(ConfigurationError, match=r"food v3 already, with the digest aa; .* has bb") as caught:
        shared.share(model("bb"), bundle)
    assert "azure.model_registry" in caught.value.next_step
    assert puts(bench) == [201]
    assert stored()["properties"] == {"digest": "aa"}


@pytest.mark.parametrize(
    "fault",
    [{"preset": "throttle"}, {"status": 500}, {"status": 503}, {"reset": True}, {"reset": "after"}],
    ids=["throttled", "500", "503", "reset", "reset-after"],
)
def test_a_passing_fault_is_retried_and_makes_one_version(bench, shared, bundle, fault):
    bench.fault(method="PUT", path=VERSION, **fault)
    # Blob storage throttles with 503.
    bench.fault(method="PUT", path="/pending-.*/model.onnx", **({"status": 503} if "preset" in fault else fault))
    shared.share(model(), bundle)
    assert files_there() == FILES
    assert len(puts(bench)) == 2
    assert len(calls(bench, "POST", url="startPendingUpload")) == 1


def test_an_upload_that_breaks_off_makes_no_version_and_is_done_again(bench, shared, bundle):
    bench.fault(method="PUT", path="/pending-.*/red.png", status=503, times=-1)
    with pytest.raises(ServiceUnavailable, match="sharing food v3 to the Azure ML registry mlr-ahc"):
        shared.share(model(), bundle)
    assert puts(bench) == []
    bench.clear_faults()
    shared.share(model(), bundle)
    assert files_there() == FILES


def test_what_is_forbidden_names_the_role_and_is_not_retried(bench, shared, bundle):
    message = (
        f"The client 'x' with object id '1234' does not have authorization to perform action "
        f"'Microsoft.MachineLearningServices/registries/assets/write' over scope '{REGISTRY_ID}'."
    )
    body = {"error": {"code": "AuthorizationFailed", "message": message}}
    bench.fault(method="PUT", path=VERSION, status=403, body=body)
    with pytest.raises(AccessDenied, match="sharing food v3") as caught:
        shared.share(model(), bundle)
    assert f"--role 'AzureML Registry User' --assignee 1234 --scope '{REGISTRY_ID}'" in caught.value.next_step
    assert puts(bench) == [403]
    # That role's published actions are those of assets.
    elsewhere = message.replace("registries/assets/write", "registries/models/versions/write")
    assert "`Contributor`" in what_to_grant(elsewhere, ["AuthorizationFailed"])


def test_a_registry_that_nobody_has_or_sees_is_named_with_where_it_was_looked_for(bench, settings, tmp_path):
    environments(tmp_path, model_registry="mlr-other", subscription_id=ANOTHER_SUBSCRIPTION)
    with pytest.raises(ConfigurationError, match="`mlr-other`.* " + f"{ANOTHER_SUBSCRIPTION} or {SUBSCRIPTION}"):
        release_target("test", settings).shared_models().share(model(), tmp_path)


def test_a_registry_that_goes_away_meanwhile_is_named(bench, shared, bundle):
    bench.fault(path="startPendingUpload", status=404, body={"error": {"code": "ResourceNotFound", "message": "gone"}})
    with pytest.raises(NotProvisioned, match="registry mlr-ahc"):
        shared.share(model(), bundle)


def test_a_registry_in_the_subscription_of_the_environment_is_found(bench, settings, bundle, tmp_path):
    environments(tmp_path, model_registry="MLR-own", subscription_id=ANOTHER_SUBSCRIPTION)
    deploy("test", settings, ANOTHER_SUBSCRIPTION)
    own = make_model_registry("mlr-own", "rg-ahc-test", ANOTHER_SUBSCRIPTION)
    bench.admin("calls", method="DELETE")
    release_target("test", settings).shared_models().share(model(), bundle)
    assert calls(bench, "PUT", url=f"{own}/models/food/versions/3")


def test_of_two_releases_at_a_time_the_second_takes_the_version_of_the_first(bench, settings, shared, bundle):
    first = AmlSharedModels(REGISTRY, load_environment("test", settings.environments), settings)
    version = f"{REGISTRY_ID}/models/food/versions/3"
    assert not shared._has(version, model())
    first.share(model(), bundle)
    shared._create(version, model(), bundle)
    assert puts(bench) == [201, 409]
    assert files_there() == FILES


def test_a_version_that_another_run_is_making_is_waited_for(bench, shared, bundle):
    bench.settings(lro_polls=4)
    try:
        version = f"{REGISTRY_ID}/models/food/versions/3"
        content = {"modelUri": "https://x.blob.core.windows.net/c/bundle", "properties": {"digest": "aa"}}
        resource_client(SUBSCRIPTION).resources.begin_create_or_update_by_id(
            version, API_VERSION, {"properties": {"modelType": "custom_model", **content}}, polling=False
        )
        shared.share(model(), bundle)
        assert stored()["provisioningState"] == "Succeeded"
        assert puts(bench) == [201]
    finally:
        bench.settings(lro_polls=2)


def test_a_version_that_could_not_be_made_is_made_by_the_next(bench, shared, bundle):
    failed = {"code": "InternalError", "message": "no copy in the region"}
    bench.fault("lro-failed", method="PUT", path=VERSION, lro_error=failed)
    with pytest.raises(ServiceUnavailable, match="no copy in the region"):
        shared.share(model(), bundle)
    assert stored()["provisioningState"] == "Failed"
    shared.share(model(), bundle)
    assert stored()["provisioningState"] == "Succeeded"
    assert files_there() == FILES


def test_the_signature_of_the_upload_is_in_no_log_and_no_error(bench, shared, bundle, caplog):
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="azure")
    shared.share(model(), bundle)
    asked = f"{uploads(bench)[0]['url']}&sig=very-secret%3D"
    # As proxies do that look into what they refuse.
    page = {"headers": {"Content-Type": "text/html"}, "body": f"<html>Blocked: https://x{asked}</html>"}
    bench.fault(method="PUT", path="/pending-", status=403, times=-1, **page)
    with pytest.raises(PlatformError, match="Blocked") as caught:
        shared.share(model().model_copy(update={"version": 4}), bundle)
    told = "".join(traceback.format_exception(caught.value)) + caught.value.next_step + caplog.text
    assert "very-secret" not in told
    assert "sig=" not in told.replace("sig=***", "").replace("sig=REDACTED", "")


@pytest.mark.usefixtures("prefect_server")
def test_the_stage_shares_where_the_file_names_a_registry_and_shows_where(bench, settings, bundle, monkeypatch):
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    promoted = in_a_run(promote, model(), str(bundle), environment_file("test"))
    assert promoted.url.endswith("/registries/mlr-ahc/models/food/version/3")
    assert files_there() == FILES
    shown = in_a_run(lambda: Artifact.get("shared-model-test"))
    assert promoted.url in shown.data
    # Elsewhere than on Azure the key counts for nothing.
    monkeypatch.setenv("AHC_BACKEND", "local")
    get_settings.cache_clear()
    bench.admin("calls", method="DELETE")
    assert in_a_run(promote, model(), str(bundle), environment_file("test")).url == ""
    assert bench.calls() == []
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.mark.parametrize("at", ["/pending-.*/red.png", VERSION], ids=["upload", "registration"])
def test_a_share_that_was_killed_is_made_whole_by_the_next(bench, settings, shared, bundle, at):
    # Refused in the end, so that what was under way at the kill is not done after it.
    bench.fault(method="PUT", path=at, delay=20, status=503, times=-1)
    program = (
        "import sys; from pathlib import Path; from infra.backend import release_target; "
        "from infra.ports import RegisteredModel; from infra.settings import get_settings; "
        "model = RegisteredModel.model_validate_json(sys.argv[2]); "
        "release_target('test', get_settings()).shared_models().share(model, Path(sys.argv[1]))"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(bundle), model().model_dump_json()],
        cwd=PROJECT,
        env={**os.environ, **settings_environment(settings)},
    )
    try:
        complete = len(FILES) - (at != VERSION)
        while len(uploads(bench)) < complete:
            assert killed.poll() is None
            time.sleep(0.1)
    finally:
        killed.kill()
        killed.wait()
    bench.clear_faults()
    with pytest.raises(ResourceNotFoundError):
        stored()
    shared.share(model(), bundle)
    assert files_there() == FILES
    assert len(uploads(bench)) == complete + len(FILES)
