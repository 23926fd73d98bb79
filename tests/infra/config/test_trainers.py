"""Trainer files, and the trainers that they name."""

from pathlib import Path

import pytest
import yaml

from infra.backend import trainer
from infra.errors import ConfigurationError
from infra.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_each_shipped_file_names_a_trainer(settings: Settings) -> None:
    assert trainer(settings) is None
    assert type(trainer(settings.model_copy(update={"trainer": "aks"}))).__name__ == "PrefectTrainer"


def test_azure_ml_needs_the_storage_on_azure(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="backend is `local`") as caught:
        trainer(settings.model_copy(update={"trainer": "azure-ml"}))
    assert "AHC_BACKEND=azure" in caught.value.next_step


def test_a_kind_without_its_section_is_told(settings: Settings, tmp_path: Path) -> None:
    written = {"name": "mine", "description": "Lacks its deployment.", "kind": "kubernetes"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="`kubernetes` is needed with `kind: kubernetes`"):
        trainer(settings.model_copy(update={"trainer": "mine", "trainers": tmp_path}))
