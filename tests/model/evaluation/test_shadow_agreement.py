import pytest

from model.evaluation.shadow_agreement import Agreement, Answer, Pair


def pair(live: dict[str, float], candidate: dict[str, float]) -> Pair:
    return Pair(image="x", live=Answer(probabilities=live), candidate=Answer(probabilities=candidate))


@pytest.mark.parametrize(
    ("live", "candidate", "distance", "agrees"),
    [
        ({"a": 0.7, "b": 0.3}, {"a": 0.7, "b": 0.3}, 0.0, True),
        ({"a": 0.7, "b": 0.3}, {"b": 0.4, "a": 0.6}, 0.1, True),
        ({"a": 0.7, "b": 0.3}, {"a": 0.2, "b": 0.8}, 0.5, False),
        ({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}, 1.0, False),
        ({"a": 0.6, "b": 0.4}, {"a": 0.6, "new": 0.4}, 0.4, True),
    ],
)
def test_two_answers_are_as_far_apart_as_their_probabilities(
    live: dict[str, float], candidate: dict[str, float], distance: float, agrees: bool
) -> None:
    assert pair(live, candidate).distance == pytest.approx(distance)
    assert pair(live, candidate).agrees is agrees


def test_a_refusal_agrees_only_with_the_same_refusal() -> None:
    scored, broken = Answer(probabilities={"a": 0.8, "b": 0.2}), Answer(problem="broken-image")
    assert Pair(image="x", live=broken, candidate=broken).agrees
    assert not Pair(image="x", live=scored, candidate=broken).agrees
    assert not Pair(image="x", live=broken, candidate=Answer(problem="body-too-large")).agrees
    assert (broken.label, broken.confidence, scored.confidence) == ("refused: broken-image", 0.0, 0.8)


def test_an_agreement_counts_and_sorts_where_they_disagree() -> None:
    same, near, far = pair({"a": 0.9, "b": 0.1}, {"a": 0.9, "b": 0.1}), {"a": 0.6, "b": 0.4}, {"a": 1.0, "b": 0.0}
    pairs = (same, pair(near, {"a": 0.4, "b": 0.6}), pair(far, {"a": 0.1, "b": 0.9}), pair({"b": 1.0}, {"c": 1.0}))
    found = Agreement(pairs=pairs)
    assert found.share == 0.25
    assert found.distance == pytest.approx((0 + 0.2 + 0.9 + 1) / 4)
    assert found.disagreements == (pairs[3], pairs[2], pairs[1])
    assert found.changes() == [("a", "b", 2), ("b", "c", 1)]


def test_a_share_at_the_limit_is_the_limit_to_the_last_bit() -> None:
    same, other = pair({"a": 1.0}, {"a": 1.0}), pair({"a": 1.0}, {"b": 1.0})
    for agreeing in range(1, 100):
        assert Agreement(pairs=(same,) * agreeing + (other,) * (100 - agreeing)).share == agreeing / 100
