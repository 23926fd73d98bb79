import json
from pathlib import Path
from typing import Literal

import pytest
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field

from deployments.runs.parameters import parse_parameters
from infra.errors import ConfigurationError


class Augmentation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    strength: float = Field(0.5, ge=0)
    mode: Literal["weak", "strong"] = "weak"


class Training(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(3, ge=1)
    seed: int | None = None
    augmentation: Augmentation = Augmentation()
    limits: dict[str, float] = {}


def flow(source: str, training: Training = Training(), release_to: list[str] = ["test"], sizes: tuple[int, ...] = ()):  # noqa: B006, B008
    """A flow's signature."""


SCHEMA = json.loads(json.dumps(parameter_schema(flow).model_dump_for_openapi()))


def parse(*pairs: str, file: Path | None = None, defaults: dict | None = None) -> dict:
    return parse_parameters(list(pairs), file, SCHEMA, defaults)


def test_values_take_the_type_of_the_schema():
    assert parse("source=2024", "training.epochs=5", "training.augmentation.strength=1e-1", "training.seed=7") == {
        "source": "2024",
        "training": {"epochs": 5, "augmentation": {"strength": 0.1}, "seed": 7},
    }


def test_lists_are_written_with_commas_or_as_json():
    expected = ["test", "acceptance"]
    assert parse("source=x", "release_to=test,acceptance")["release_to"] == expected
    assert parse("source=x", 'release_to=["test", "acceptance"]')["release_to"] == expected
    assert parse("source=x", "release_to=test")["release_to"] == ["test"]
    assert parse("source=x", "release_to=")["release_to"] == []
    assert parse("source=x", "sizes=1,2")["sizes"] == [1, 2]


def test_a_value_may_contain_an_equals_sign_and_optional_ones_take_null():
    assert parse("source=https://host/a?b=c", "training.seed=null") == {
        "source": "https://host/a?b=c",
        "training": {"seed": None},
    }


def test_free_keys_of_a_mapping_are_accepted_and_typed():
    assert parse("source=x", "training.limits.fish=0.8")["training"] == {"limits": {"fish": 0.8}}


@pytest.mark.parametrize(
    ("pair", "meant"),
    [
        ("sorce=x", "`source`"),
        ("training.epoch=3", "`training.epochs`"),
        ("trainin.epochs=3", "`training.epochs`"),
        ("epochs=3", "`training.epochs`"),
        ("training.augmentation.mod=weak", "`training.augmentation.mode`"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(pair, meant):
    with pytest.raises(ConfigurationError) as caught:
        parse("source=x", pair)
    assert f"`{pair.split('=')[0]}`" in str(caught.value)
    assert f"did you mean {meant}?" in str(caught.value)


def test_every_mistake_is_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        parse("sorce=x", "training.epoch=3", "nonsense")
    for word in ("`sorce`", "`training.epoch`", "`nonsense` is not of the form key=value"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("training.epochs=many", "`training.epochs`: 'many' is not a value of type 'integer'"),
        ("training.epochs=0", "`training.epochs`: 0 is less than the minimum of 1"),
        ("training.augmentation.mode=strange", "`training.augmentation.mode`: 'strange' is not one of"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(pair, words):
    with pytest.raises(ConfigurationError, match=words.replace("(", r"\(")):
        parse("source=x", pair)


def test_a_missing_parameter_is_named_with_how_to_give_it():
    with pytest.raises(ConfigurationError, match=r"`source` is missing: give it with -p source="):
        parse("training.epochs=3")


def test_a_pair_wins_over_the_file_and_the_rest_of_the_file_stays(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("source: photos\ntraining: {epochs: 9, seed: 1}\n")
    assert parse("training.epochs=2", file=file) == {"source": "photos", "training": {"epochs": 2, "seed": 1}}


def test_a_wrong_key_in_the_file_is_named_with_the_file(tmp_path):
    file = tmp_path / "parameters.json"
    file.write_text(json.dumps({"source": "x", "training": {"epocs": 2}}))
    with pytest.raises(ConfigurationError, match=r"parameters\.json: there is no parameter `training\.epocs`"):
        parse(file=file)


@pytest.mark.parametrize("content", ["[1, 2]", "a: b: c", None])
def test_a_file_that_is_no_parameter_file_is_named(tmp_path, content):
    file = tmp_path / "parameters.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"parameters\.yaml"):
        parse(file=file)


def test_nested_values_are_merged_into_those_of_the_deployment():
    defaults = {"source": "food", "training": {"epochs": 9, "augmentation": {"mode": "strong"}}}
    assert parse("training.augmentation.strength=0.1", defaults=defaults) == {
        "training": {"epochs": 9, "augmentation": {"mode": "strong", "strength": 0.1}}
    }
    assert parse(defaults=defaults) == {}
