"""The evidence of a release on two real bundles with their data, as a run on a real Prefect server publishes it."""

import base64
import io
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from infra.backend import backend, release_target
from infra.config.environments import load_environment
from infra.ports import LiveModel, RegisteredModel
from infra.settings import Settings, get_settings
from model.bundle.read import BundleRef
from model.data.manifest import DataVersion
from model.export.build import bundle_network
from tasks.release import evidence
from tasks.release.evidence import Opponent, evidence_page, show_evidence
from tests.conftest import environment_restored
from tests.support.colour_model import colour_data, lineage, trained


@flow
def showing(name: str, version: int) -> Any:
    from prefect import runtime

    model = backend(get_settings()).registry().get(name, version)
    target = load_environment("production", get_settings().environments)
    show_evidence(model, target, "Jan")
    return runtime.flow_run.id


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colour_data(tmp_path_factory.mktemp("colours"), each=40, noise=45)


@pytest.fixture(scope="module")
def bundles(data, tmp_path_factory):
    """Two models that don't always agree."""
    folder = tmp_path_factory.mktemp("bundles")
    changes: list[dict[str, Any]] = [{"sharpness": 0.5, "offset": (1.5, 0, 0)}, {}]
    return [
        bundle_network(trained(**change), data, folder / str(at), name="colours", lineage=lineage(data))
        for at, change in enumerate(changes)
    ]


@pytest.fixture
def settings(prefect_server, tmp_path):
    """A home of its own, on the server that all tests share."""
    with environment_restored():
        os.environ |= {"AHC_HOME": str(tmp_path / "home"), "AHC_ENVIRONMENTS": str(tmp_path / "environments")}
        (tmp_path / "environments").mkdir()
        for offset, name in enumerate(("test", "production")):
            described = {
                "name": name,
                "description": "x",
                "port_offset": offset,
                "gates": {"approvers": ["A. Jansen"], "four_eyes": True, "approval_hours": 2},
            }
            (tmp_path / "environments" / f"{name}.yaml").write_text(yaml.safe_dump(described))
        get_settings.cache_clear()
        yield get_settings()
        release_target("production", get_settings()).endpoint().stop()


def register(settings: Settings, bundle: BundleRef, data: DataVersion, **tags: str) -> RegisteredModel:
    known = {
        "verdict": "promote",
        "verdict_reason": "better | by 3 points",
        "data_version": data.version,
        "data_uri": data.manifest_uri,
        "source_uri": data.source_uri,
        "trained_by": "piet",
        "correlation_id": "build-4711",
    }
    return (
        backend(settings)
        .registry()
        .register(
            Path(bundle.path),
            name=bundle.name,
            digest=bundle.digest,
            tags={**known, **tags},
            metrics={"test_accuracy": 0.91},
        )
    )


def serve(settings: Settings, model: RegisteredModel) -> None:
    target = release_target("production", settings).endpoint()
    live = LiveModel(name=model.name, version=model.version, digest=model.digest)
    target.switch(target.deploy(backend(settings).registry().download(model, settings.path("served")), live))


def shown(run: Any) -> dict[str, Any]:
    """What a run published, by key; Prefect's own have none."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])), limit=50
        )
    published = [item for item in found if item.key]
    assert len({item.key for item in published}) == len(published)
    return {str(item.key): item.data for item in published}


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))


def test_a_candidate_is_shown_beside_what_is_live(settings, data, bundles):
    live, candidate = (register(settings, bundle, data) for bundle in bundles)
    serve(settings, live)
    about = LiveModel(name=candidate.name, version=candidate.version, digest=candidate.digest)
    backend(settings).ledger().append(
        "test", "switched", about, by="trigger", run="r", details={"latency_p95_ms": 12.3456, "images": 9}
    )
    artifacts = shown(showing("colours", 2))
    assert set(artifacts) == {"approval", "confusion-matrices", "disagreements"}
    assert opened(artifacts["confusion-matrices"]).size[0] > 900
    page = artifacts["approval"]
    for text in (
        "# colours v2 to production?",
        "Started by Jan. A. Jansen may decide, within 2 hours. Not Jan, who started it",
        "colours v1 is live. Measured on the 24 test images of data version",
        "| colours v2 | colours v1, live |",
        "images differently. Only the candidate is right on",
        "| latency of one image, here |",
        "It runs on this machine and costs nothing more.",
        f"| data version | `{data.version}` |",
        "| code | `0123abc` |",
        "| seed | 3 |",
        "| trained by | piet |",
        "| build or run | `build-4711` |",
        "| verdict | promote: better \\| by 3 points |",
        "| switched | trigger |  | latency_p95_ms 12.35, images 9 |",
    ):
        assert text in page, page


def test_what_was_compared_once_is_not_computed_again(settings, data, bundles, monkeypatch):
    serve(settings, register(settings, bundles[0], data))
    register(settings, bundles[1], data)
    first = shown(showing("colours", 2))
    monkeypatch.setattr(evidence, "_compare", lambda *_: pytest.fail("compared again"))
    again = shown(showing("colours", 2))
    # The page names the run that asks.
    pages = [re.sub(r"ahc (approve|reject) \S+", "", each.pop("approval")) for each in (first, again)]
    assert pages[0] == pages[1]
    assert again == first


def test_a_first_release_is_shown_alone(settings, data, bundles):
    register(settings, bundles[0], data)
    artifacts = shown(showing("colours", 1))
    assert set(artifacts) == {"approval", "confusion-matrices"}
    assert "Nothing is live in production: this is its first release." in artifacts["approval"]
    assert "differently" not in artifacts["approval"]


def test_data_that_is_gone_is_said_and_looked_for_again_by_the_next_run(settings, data, bundles, tmp_path):
    moved = data.model_copy(update={"source_uri": str(tmp_path / "moved")})
    serve(settings, register(settings, bundles[0], moved))
    register(settings, bundles[1], moved)
    artifacts = shown(showing("colours", 2))
    assert set(artifacts) == {"approval"}  # no failure card: nothing failed
    assert "**It couldn't be measured again.**" in artifacts["approval"]
    assert "can't be read any more" in artifacts["approval"]
    assert "| test_accuracy | 0.91 |" in artifacts["approval"]
    assert "| seed | 3 |" in artifacts["approval"]

    shutil.copytree(data.source_uri, moved.source_uri)
    assert set(shown(showing("colours", 2))) == {"approval", "confusion-matrices", "disagreements"}


def test_a_version_from_before_and_a_live_model_of_another_name_are_no_obstacle(settings, data, bundles):
    register(settings, bundles[1], data, source_uri="")
    target = release_target("production", settings).endpoint()
    other = LiveModel(name="digits", version=7, digest=bundles[0].digest)
    target.switch(target.deploy(Path(bundles[0].path), other))
    page = shown(showing("colours", 1))["approval"]
    assert "digits v7 is live, a model of another name: it can't be compared." in page
    assert "The registry doesn't say where its images are" in page


def test_on_azure_the_cost_of_a_release_is_that_of_its_containers(monkeypatch):
    monkeypatch.setenv("AHC_BACKEND", "azure")
    monkeypatch.setenv("AHC_AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-000000000001")
    get_settings.cache_clear()
    target = load_environment("production", get_settings().environments)
    page = evidence_page(candidate(), target, "Jan", Opponent(summary="Nothing is live."), None, "No data.")
    get_settings.cache_clear()
    assert re.search(r"About \d+ USD a month for the containers of production", page), page
    # Nothing of Azure answers here: the rest is said to be unknown.
    assert page.count("Not known: ") == 2


def candidate() -> RegisteredModel:
    return RegisteredModel(name="colours", version=1, digest="0" * 64, uri="x", created=datetime.now(UTC))
