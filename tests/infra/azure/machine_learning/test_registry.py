"""The Azure ML registry when Azure misbehaves."""

import os
import subprocess
import sys
import time

import pytest

from infra.azure.machine_learning.registry import AmlRegistry
from infra.errors import AccessDenied, NoCredentials, NotProvisioned, ServiceUnavailable
from infra.settings import PROJECT
from tests.conftest import settings_environment
from tests.support.azure.bench import SUBSCRIPTION, azure_settings, calls
from tests.support.azure.fixtures import forget_clients
from tests.support.azure.small_platform import provision

pytestmark = pytest.mark.azure

VERSION = "models/food/versions/1"


@pytest.fixture
def registry(bench, tmp_path):
    settings = azure_settings(tmp_path / "home")
    provision(settings)
    return AmlRegistry(settings)


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.onnx").write_text("weights")
    return folder


def register(registry, bundle):
    return registry.register(bundle, name="food", digest="aa", tags={"verdict": "promote"}, metrics={})


def puts(bench):
    return [call["status"] for call in calls(bench, "PUT", url=VERSION)]


@pytest.mark.parametrize(
    "fault",
    [{"preset": "throttle"}, {"status": 500}, {"status": 503}, {"reset": True}, {"reset": "after"}],
    ids=["throttled", "500", "503", "reset", "reset-after"],
)
def test_a_passing_fault_is_retried_and_registers_once(bench, registry, bundle, fault):
    bench.fault(method="PUT", path=VERSION, **fault)
    assert register(registry, bundle).version == 1
    assert len(puts(bench)) == 2
    assert [model.version for model in registry.versions("food")] == [1]


def test_an_outage_is_transient_and_the_rerun_registers_once(bench, registry, bundle):
    bench.fault("outage", method="PUT", path=VERSION)
    with pytest.raises(ServiceUnavailable, match="registering food with digest aa"):
        register(registry, bundle)
    bench.clear_faults()
    assert register(registry, bundle).version == 1
    assert register(registry, bundle).version == 1


def test_what_is_forbidden_is_not_retried(bench, registry, bundle):
    bench.fault("forbidden", method="PUT", path=VERSION)
    with pytest.raises(AccessDenied, match="registering food"):
        register(registry, bundle)
    assert puts(bench) == [403]


def test_a_workspace_that_is_gone_is_not_an_empty_registry(bench, registry):
    path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ahc-platform/providers/Microsoft.MachineLearningServices"
    bench.fault(path=f"{path}/workspaces/mlw-ahc-platform", status=404, times=-1, body={"error": {"code": "NotFound"}})
    with pytest.raises(NotProvisioned, match="mlw-ahc-platform"):
        registry.versions("food")


def test_a_refused_token_says_how_to_sign_in(bench, registry, bundle, monkeypatch):
    assert registry.versions("food") == []
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    forget_clients()
    with pytest.raises(NoCredentials):
        AmlRegistry(registry._settings).versions("food")


def test_a_registration_that_was_killed_is_made_by_the_next_and_leaves_no_second_version(
    bench, registry, bundle, tmp_path
):
    bench.fault(method="PUT", path=VERSION, delay=30)
    program = (
        "import sys; from pathlib import Path; from infra.azure.machine_learning.registry import AmlRegistry; "
        "from infra.settings import get_settings; "
        "AmlRegistry(get_settings()).register(Path(sys.argv[1]), name='food', digest='aa', tags={}, metrics={})"
    )
    environment = settings_environment(registry._settings)
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(bundle)],
        cwd=PROJECT,
        env={**os.environ, **environment},
    )
    try:
        while not bench.calls(url="LocalUpload"):
            assert killed.poll() is None
            time.sleep(0.1)
    finally:
        killed.kill()
        killed.wait()
    bench.clear_faults()
    # The killed holder's lease runs out by itself.
    assert register(registry, bundle).version == 1
    assert [model.version for model in registry.versions("food")] == [1]
