import pytest

from infra.backend import backend
from infra.local.stores import registry as module
from infra.local.stores.registry import champions
from infra.settings import Settings
from tests.support.bundles import make_bundle


@pytest.fixture
def registered(tmp_path):
    """Two models; version 2 of one is champion of `test`, version 1 of `acceptance`."""
    settings = Settings(home=tmp_path / "home")
    models = backend(settings).registry()
    versions = []
    for bias in (0.0, 0.1):
        folder = tmp_path / f"bundle-{bias}"
        bundle = make_bundle(folder, bias=bias)
        versions.append(
            models.register(folder, name=bundle.name, digest=bundle.digest, tags={"verdict": "promote"}, metrics={})
        )
    models.set_champion(versions[1], "test")
    models.set_champion(versions[0], "acceptance")
    return settings


def test_champions_are_those_that_mlflow_names(registered, monkeypatch):
    quick = champions(registered, ["test", "acceptance", "production"])
    assert {name: [model.version for model in models] for name, models in quick.items()} == {
        "test": [2],
        "acceptance": [1],
        "production": [],
    }
    assert quick["test"][0] == backend(registered).registry().champion("colours", "test")

    # As with an MLflow whose tables are others.
    monkeypatch.setattr(module, "CHAMPION", "SELECT no_such_column FROM registered_model_aliases")
    assert champions(registered, ["test", "acceptance", "production"]) == quick


def test_without_a_registry_there_are_none_and_none_is_made(tmp_path):
    settings = Settings(home=tmp_path / "home")
    assert champions(settings, ["test"]) == {"test": ()}
    assert not (tmp_path / "home").exists()
