from datetime import UTC, datetime

import pytest

from infra.ports import EndpointStatus, LiveModel, RegisteredModel
from infra.releases.ledger import ReleaseEvent
from infra.releases.record_agreement import REPAIR, differences

ONE = LiveModel(name="photos", version=1, digest="1" * 64)
TWO = LiveModel(name="photos", version=2, digest="2" * 64)


def endpoint(live):
    return EndpointStatus(environment="test", url="x", state="running" if live else "stopped", live=live)


def event(model):
    return ReleaseEvent(
        environment="test",
        sequence=1,
        at=datetime.now(UTC),
        kind="switched",
        model=model,
        by="ann",
        run="r",
        previous="",
        digest="0" * 64,
    )


def champion(model):
    return RegisteredModel(**model.model_dump(), uri="x", created=datetime.now(UTC))


def test_where_all_say_the_same_nothing_differs():
    assert differences(endpoint(TWO), event(TWO), champion(TWO)) == []


@pytest.mark.parametrize(
    ("told", "known", "words"),
    [
        (ONE, TWO, ["the ledger says that it runs photos v1 (111111111111)"]),
        (TWO, ONE, ["the registry names as champion photos v1 (111111111111)"]),
        (None, TWO, ["the ledger tells of no release"]),
        (TWO, None, ["the registry names no champion"]),
        (ONE, ONE, ["the ledger says that it runs photos v1", "the registry names as champion photos v1"]),
    ],
)
def test_each_record_that_differs_is_one_line_with_who_is_right_and_the_command(told, known, words):
    lines = differences(endpoint(TWO), event(told) if told else None, champion(known) if known else None)
    assert len(lines) == len(words)
    for line, expected in zip(lines, words, strict=True):
        assert expected in line
        assert "endpoint runs photos v2 (222222222222)" in line
        assert "The endpoint is right" in line
        assert REPAIR in line
        assert "\n" not in line


def test_an_endpoint_that_runs_nothing_is_compared_with_nothing():
    assert differences(endpoint(None), event(ONE), champion(TWO)) == []
