"""What a training configuration says, and what it refuses."""

import pytest
from pydantic import ValidationError

from model.config import AugmentationConfig, TrainingConfig
from model.errors import InvalidConfig


def test_the_defaults_survive_a_round_trip_through_json():
    config = TrainingConfig()
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("model", [TrainingConfig, AugmentationConfig])
def test_every_field_is_described_for_the_form(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("network", ["resnet50", "timm:", "timm:a b", "timm:../x", "efficientnet_lite0x"])
def test_a_network_that_nobody_knows_is_refused(network):
    with pytest.raises(ValidationError, match="network"):
        TrainingConfig(network=network)


def test_any_backbone_of_timm_can_be_named_where_timm_is_missing_too():
    assert TrainingConfig(network="timm:convnext_tiny.fb_in22k").network == "timm:convnext_tiny.fb_in22k"


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="learning_rat"):
        TrainingConfig(learning_rat=1)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epochs": 0, "head_epochs": 0}, "nothing is trained"),
        ({"devices": 0}, "`devices`"),
        ({"accelerator": "cpu", "precision": "16-mixed"}, "`precision`"),
        ({"epochs": 0, "accumulate_grad_batches": 2}, "`accumulate_grad_batches`"),
    ],
)
def test_values_that_exclude_each_other_are_refused_by_name(values, named):
    with pytest.raises(InvalidConfig, match=named):
        TrainingConfig(**values)


def test_all_contradictions_are_named_at_once():
    with pytest.raises(InvalidConfig, match=r"nothing is trained.*`devices`"):
        TrainingConfig(epochs=0, head_epochs=0, devices=-1)
