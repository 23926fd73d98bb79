"""Data validation and training in one pod, then in another one with an empty AHC_HOME, all on the bench and Azurite."""

import fsspec
import pytest

from infra.azure.machine_learning.registry import AmlRegistry
from tests.support.azure.pods import run_in_pod
from tests.support.training_case import small_data

pytestmark = [pytest.mark.azure, pytest.mark.timeout(900)]
ROOT = "abfs://data@stahcplatform.dfs.core.windows.net"


@pytest.fixture
def source(cloud, tmp_path):
    small_data(tmp_path / "photos", images=15)
    files, path = fsspec.core.url_to_fs(f"{ROOT}/photos")
    files.put(f"{tmp_path}/photos/source/", f"{path}/", recursive=True)
    return f"{ROOT}/photos"


@pytest.mark.long
def test_a_second_pod_uses_what_the_first_made_and_makes_only_what_is_new(
    prefect_server, cloud, bench, source, tmp_path
):
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def pod(name, seed):
        settings = cloud.model_copy(update={"home": tmp_path / name, "mlflow_tracking_uri": tracking})
        return run_in_pod(settings, prefect_server.prefect_api_url, "tests.support.azure.pod_flow", source, seed)

    first = pod("a", 0)
    assert first["training"]["directory"].startswith("https://stahcplatform.blob.core.windows.net/models/folders/")
    assert first["sealed"]["bundle"]["path"].startswith("https://stahcplatform.blob.core.windows.net/models/folders/")
    assert all(uri.startswith(f"{ROOT}/reports/") for uri in first["judgement"]["plots"].values())
    calls = bench.calls(url="/data/colours/versions/")
    assert [call["status"] < 300 for call in calls if call["method"] == "PUT"] == [True]

    second = pod("b", 1)
    for kept in ("training", "sealed"):
        assert second[kept] == first[kept]
    assert second["judgement"]["origin"] != first["judgement"]["origin"]
    assert not (tmp_path / "b" / "training").exists()
    assert not (tmp_path / "b" / "bundles").exists()
    assert [model.version for model in AmlRegistry(cloud).versions("colours")] == [1]
