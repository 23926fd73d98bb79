"""The release flow on Azure, under a light constant load: all is real but Azure itself, and no request is lost."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.release import release
from flows.rollback import rollback
from infra.azure.access.resources import environment_resources
from infra.azure.endpoint.environment import BUNDLES
from infra.azure.storage.blobs import blob_service
from infra.backend import backend, release_target
from infra.config.environments import endpoint_key, load_environment
from infra.ports import RegisteredModel
from infra.settings import get_settings
from model.bundle.read import open_bundle
from tasks.release.gate_rules import LINEAGE_TAGS
from tests.support.azure import bench as benches
from tests.support.azure.constant_load import ConstantLoad
from tests.support.azure.containers_world import ContainersWorld
from tests.support.azure.small_platform import deploy, make_model_registry, provision
from tests.support.bundles import make_bundle
from tests.support.local_endpoint import eventually

pytestmark = [pytest.mark.azure, pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]

ANOTHER_SUBSCRIPTION = "99999999-2222-3333-4444-555555555555"
PATIENT = 20_000.0
"""Milliseconds that no answer takes here, however busy the machine is."""
CANARY = {"share": 0.5, "seconds": 8, "min_requests": 3, "latency_p95_ms": PATIENT}
WATCH = {"seconds": 2, "min_requests": 1, "latency_p95_ms": PATIENT}


class Platform:
    """A provisioned platform with its environments, and whoever releases to them."""

    def __init__(self, folder: Path, bench: Any) -> None:
        self.folder, self.bench = folder, bench

    def register(self, version: int, **bundle: Any) -> RegisteredModel:
        folder = self.folder / f"v{version}"
        ref = make_bundle(folder, code=f"version {version}", **bundle)
        lineage = {name: str(getattr(open_bundle(folder).lineage, name)) for name in LINEAGE_TAGS}
        tags = {"verdict": "promote", "mlflow_run": "run", **lineage}
        model = (
            backend(get_settings()).registry().register(folder, name=ref.name, digest=ref.digest, tags=tags, metrics={})
        )
        assert model.version == version
        return model

    def release(self, version: int, environment: str = "test") -> str:
        """The name of the run's final state."""
        state = release(name="colours", version=version, environment=environment, return_state=True)
        return str(state.name)

    def live(self, environment: str = "test") -> tuple[int, str]:
        status = release_target(environment, get_settings()).endpoint().status()
        return status.live.version, status.live.digest

    def load(self, environment: str = "test") -> ConstantLoad:
        settings = get_settings()
        key = release_target(environment, settings).secrets().ensure(endpoint_key(environment))
        return ConstantLoad(release_target(environment, settings).endpoint().status().url, key)

    def told(self, environment: str = "test") -> list[tuple[str, int]]:
        return [(item.kind, item.model.version) for item in backend(get_settings()).ledger().events(environment)]


def described(folder: Path, **environments: dict[str, Any]) -> Path:
    folder.mkdir()
    for offset, (name, content) in enumerate(environments.items()):
        content["gates"] = {"latency_p95_ms": PATIENT, **content.get("gates", {})}
        content |= {"name": name, "description": "For tests.", "port_offset": offset, "scoring_threads": 2}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(params=["container-instances", pytest.param("app-service", marks=pytest.mark.long)])
def kind(request) -> str:
    return str(request.param)


@pytest.fixture
def platform(prefect_server, bench, kind, tmp_path, monkeypatch) -> Iterator[Platform]:
    environments = described(
        tmp_path / "environments",
        test={"azure": {"endpoint": kind}, "gates": {"canary": CANARY, "watch": WATCH}},
        acceptance={
            "azure": {"endpoint": kind, "subscription_id": ANOTHER_SUBSCRIPTION, "model_registry": "mlr-ahc"},
            "gates": {"requires": "test"},
        },
    )
    for name, value in {
        "AHC_HOME": tmp_path / "home",
        "AHC_BACKEND": "azure",
        "AHC_AZURE_SUBSCRIPTION_ID": benches.SUBSCRIPTION,
        "AHC_ENVIRONMENTS": environments,
    }.items():
        monkeypatch.setenv(name, str(value))
    get_settings.cache_clear()
    provision(get_settings(), "test")
    deploy("acceptance", get_settings(), ANOTHER_SUBSCRIPTION)
    make_model_registry("mlr-ahc")
    with ContainersWorld(bench, tmp_path / "containers"):
        yield Platform(tmp_path, bench)
    monkeypatch.undo()
    get_settings.cache_clear()


def test_versions_come_and_go_without_a_lost_request(platform):
    for version in (1, 2):
        platform.register(version)
    platform.register(3, golden={"red": (1.0, 0.0, 0.0)})
    assert platform.release(1) == "Completed"
    with platform.load() as load:
        assert platform.release(2) == "Completed"
        assert platform.live()[0] == 2
        assert {1, 2} <= set(load.versions)
        rollback(environment="test", reason="a test of it")
        assert platform.live()[0] == 1
        assert platform.release(3) == "SmokeTestFailed"
        assert platform.live()[0] == 1
        # The bad candidate took the place of the previous version, so that it is named.
        rollback(environment="test", reason="a test of it", name="colours", version=2)
        assert platform.live()[0] == 2
        before = load.versions[2]
        eventually(lambda: load.versions[2] > before + 3, 60)
    assert load.lost == []
    assert 3 not in load.versions
    kinds = [event for event in platform.told() if event[0] in {"switched", "failed", "rolled-back"}]
    assert kinds == [("switched", 1), ("switched", 2), ("rolled-back", 1), ("failed", 3), ("rolled-back", 2)]


def test_a_promotion_copies_the_bundle_by_its_digest_and_makes_nothing_anew(platform, bench):
    model = platform.register(1)
    assert platform.release(1) == "Completed"
    bench.admin("calls", method="DELETE")
    assert platform.release(1, "acceptance") == "Completed"
    assert platform.live("acceptance") == platform.live("test") == (1, model.digest)
    copies = {name: published(name) for name in ("test", "acceptance")}
    assert copies["test"] == copies["acceptance"]
    assert sorted(copies["test"]) == sorted(bytes_of(platform.folder / "v1"))
    written = [call["url"] for call in bench.calls(host="management") if call["method"] in {"PUT", "POST", "PATCH"}]
    assert not [url for url in written if "scheduleRun" in url or "/jobs/" in url]
    versions = {re.findall(r"/versions/(\d+)", url)[0] for url in written if "/models/colours/" in url}
    assert versions <= {"1"}, "no other version than the one that is promoted may change"
    made = [call["url"] for call in bench.calls(host="management") if call["method"] in {"PUT", "PATCH"}]
    (shared,) = [url for url in made if "/registries/mlr-ahc/models/colours/versions/1?" in url]
    deployed = [url for url in made if f"/subscriptions/{ANOTHER_SUBSCRIPTION}/" in url]
    assert made.index(shared) < made.index(deployed[0]), "it is shared before anything is deployed"


def published(environment: str) -> list[bytes]:
    """The files that containers of this environment find."""
    settings = get_settings()
    found = environment_resources(load_environment(environment, settings.environments), settings)
    container = blob_service(found.storage_account).get_container_client(BUNDLES)
    blobs = sorted(item.name for item in container.list_blobs() if item.size and "/model.onnx" in item.name)
    return [container.download_blob(name).readall() for name in blobs]


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / "model.onnx").read_bytes()]
