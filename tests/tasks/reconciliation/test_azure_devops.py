"""A reconciliation tells Azure DevOps: a real flow run and registry, a Key Vault of the bench, a stand-in."""

from pathlib import Path

import pytest
from prefect import flow

from infra.azure.storage.key_vault import ensure_secret
from infra.azure_devops.webhook import SECRET
from infra.backend import backend
from infra.errors import DevOpsRefused
from infra.ports import Notice
from infra.settings import get_settings
from tasks.reconciliation.azure_devops import tell_azure_devops
from tasks.reconciliation.reconcile import Taken
from tests.infra.azure_devops.test_approvals import stage_waits
from tests.support.azure.bench import SUBSCRIPTION
from tests.support.bundles import make_bundle

pytestmark = pytest.mark.azure


@pytest.fixture
def told(prefect_server, cloud, organisation, tmp_path, monkeypatch):
    """Tells of these versions, in a flow run of a platform that names this organisation."""
    file = tmp_path / "devops.yaml"
    file.write_text(
        f"organisation: {organisation.address}\nproject: AHClassifier\nrepository: AHClassifier\nmirror: id-ahc-flows\n"
        "approvers: [x]\npipelines:\n  AHImgClassifier-cd: {file: cd.yml, webhook: true}\n"
    )
    monkeypatch.setenv("AHC_HOME", str(tmp_path / "local"))
    monkeypatch.setenv("AHC_DEVOPS", str(file))
    monkeypatch.setenv("AHC_AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
    get_settings.cache_clear()
    secret = ensure_secret("https://kv-ahc-platform.vault.azure.net", SECRET).get_secret_value()
    organisation.secrets["ahc-model-registered"] = secret

    @flow
    def reconciliation(*versions):
        notices = [
            Notice(id=str(version), receipt="r", text="t", taken=1, name="food" if version else None, version=version)
            for version in versions
        ]
        tell_azure_devops(Taken(notices=tuple(notices)))
        return [event["data"]["ModelVersion"] for event in organisation.received]

    yield reconciliation
    get_settings.cache_clear()


def register(folder: Path, verdict: str):
    bundle = make_bundle(folder / verdict, name="food", code=verdict)
    models = backend(get_settings()).registry()
    return models.register(Path(bundle.path), name="food", digest=bundle.digest, tags={"verdict": verdict}, metrics={})


def test_a_version_that_may_be_promoted_starts_the_pipeline_once(told, tmp_path):
    good, bad = register(tmp_path, "promote"), register(tmp_path, "reject")
    assert told(good.version, bad.version, good.version, 99, None) == [str(good.version)]


def test_a_refused_call_fails_so_that_the_notice_comes_back(told, organisation, tmp_path):
    organisation.secrets["ahc-model-registered"] = "another"
    with pytest.raises(DevOpsRefused):
        told(register(tmp_path, "promote").version)


def test_a_decision_is_carried_over_by_the_way(told, organisation, tmp_path):
    model = register(tmp_path, "promote")
    stage_waits(organisation, tags=(f"food-v{model.version}",))
    backend(get_settings()).ledger().append(
        "production", "approved", model.as_live, by="P. Bakker", reason="fine", run="r"
    )
    told()
    assert organisation.approvals[0]["status"] == "approved"


def test_without_an_organisation_nobody_is_told(told, organisation, tmp_path, monkeypatch):
    monkeypatch.delenv("AHC_DEVOPS")
    get_settings.cache_clear()
    assert told(register(tmp_path, "promote").version) == []
    assert organisation.calls == []
