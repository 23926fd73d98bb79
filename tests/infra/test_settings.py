import pytest

from infra.errors import ConfigurationError
from infra.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def _fresh_settings():
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AHC_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AHC_PREFECT_PORT", "4777")
    settings = get_settings()
    assert settings.home == (tmp_path / "state").resolve()
    assert settings.prefect_api_url == "http://127.0.0.1:4777/api"
    assert settings.path("a", "b").is_dir()


def test_every_wrong_setting_is_named(monkeypatch):
    monkeypatch.setenv("AHC_PREFECT_PORT", "seventy")
    monkeypatch.setenv("AHC_WORKERS", "-1")
    with pytest.raises(ConfigurationError, match=r"AHC_PREFECT_PORT.*AHC_WORKERS"):
        get_settings()


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
