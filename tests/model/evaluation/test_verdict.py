import numpy as np
import pytest
from pydantic import ValidationError

from model.evaluation.evaluate import Assessment, Comparison, Evaluation, compare, evaluate
from model.evaluation.metrics import PairedCounts
from model.evaluation.predictions import Images, Latency, Predictions
from model.evaluation.verdict import GateConfig, Verdict, judge

LABELS = ("a", "b", "c", "d", "e")


def model(
    right: np.ndarray,
    truth: np.ndarray,
    *,
    labels: tuple[str, ...] = LABELS,
    digest: str = "1" * 64,
    size: int = 13_000_000,
    median: float = 10.0,
) -> Predictions:
    """A model that is right where `right` says so and else answers the next label."""
    names = tuple(str(at) for at in range(len(truth)))
    images = Images("memory://", names, tuple(LABELS[at] for at in truth), names)
    targets = images.targets(labels)
    answers = np.where(right, targets, (targets + 1) % len(labels))
    probabilities = np.eye(len(labels))[answers] * 0.9 + 0.1 / len(labels)
    latency = Latency(median=median, p95=median * 2, runs=10)
    return Predictions(images, labels, probabilities, targets, "m", digest, size, latency)


def assessment(challenger: Predictions, champion: Predictions | None = None) -> Assessment:
    if champion is None:
        return Assessment(challenger=evaluate(challenger))
    return Assessment(
        challenger=evaluate(challenger), champion=evaluate(champion), comparison=compare(challenger, champion)
    )


def simulate(images: int, mine: float, theirs: float, *, seed: int, agree: float = 0.75) -> Verdict:
    """Two models of given accuracy; on a share `agree` of the images they are right or wrong together."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(LABELS), images)
    together = random.uniform(size=images) < agree
    luck = random.uniform(size=images)
    left = np.where(together, luck, random.uniform(size=images)) < mine
    right = np.where(together, luck, random.uniform(size=images)) < theirs
    return judge(assessment(model(left, truth), model(right, truth, digest="2" * 64)), GateConfig())


def rates(images: int, mine: float, theirs: float, runs: int = 200) -> dict[str, float]:
    outcomes = [simulate(images, mine, theirs, seed=seed).outcome for seed in range(runs)]
    return {outcome: outcomes.count(outcome) / runs for outcome in ("promote", "reject", "inconclusive")}


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if not check.passed}


def test_a_worse_model_is_rarely_promoted_and_an_equal_one_rarely_rejected() -> None:
    worse = rates(200, 0.80, 0.90)
    assert worse["promote"] <= 0.01
    assert worse["reject"] >= 0.85
    equal = rates(200, 0.90, 0.90)
    assert equal["reject"] <= 0.08
    assert equal["promote"] >= 0.35
    better = rates(200, 0.95, 0.88)
    assert better["reject"] <= 0.01
    assert better["promote"] >= 0.95


def test_few_test_images_lead_to_inconclusive_and_not_to_a_wrong_verdict() -> None:
    equal = rates(48, 0.90, 0.90)
    assert equal["reject"] <= 0.08
    worse = rates(48, 0.80, 0.90)
    assert worse["promote"] <= 0.03


def test_a_slight_loss_on_many_images_is_not_promoted() -> None:
    truth = np.arange(20_000) % 5
    champion, challenger = np.ones(20_000, dtype=bool), np.ones(20_000, dtype=bool)
    champion[:2000] = challenger[:2000] = False
    challenger[2000:2300] = False
    verdict = judge(assessment(model(challenger, truth), model(champion, truth, digest="2" * 64)), GateConfig())
    assert verdict.outcome == "reject"
    assert "not shown to be worse" in failed(verdict)


def test_equal_answers_of_another_model_are_promoted_once_the_margin_is_ruled_out() -> None:
    def verdict(images: int) -> str:
        truth = np.arange(images) % 5
        right = np.arange(images) % 9 > 0
        return judge(assessment(model(right, truth), model(right, truth, digest="2" * 64)), GateConfig()).outcome

    assert verdict(20) == "inconclusive"
    assert verdict(200) == "promote"


def test_the_champion_itself_is_nothing_to_decide() -> None:
    truth = np.arange(100) % 5
    same = model(truth >= 0, truth)
    verdict = judge(assessment(same, same), GateConfig())
    assert verdict.outcome == "inconclusive"
    assert "champion itself" in verdict.reason


def test_a_class_that_is_lost_rejects_although_accuracy_rose() -> None:
    truth = np.arange(500) % 5
    champion = np.arange(500) % 7 > 1
    challenger = np.ones(500, dtype=bool)
    challenger[truth == 3] = False
    verdict = judge(assessment(model(challenger, truth), model(champion, truth, digest="2" * 64)), GateConfig())
    assert verdict.outcome == "reject"
    assert failed(verdict) == {"recall of each class"}
    assert "d (-" in verdict.reason


def test_two_images_of_a_small_class_do_not_reject() -> None:
    truth = np.concatenate([np.zeros(200, dtype=int), np.full(5, 1)])
    champion = np.arange(205) % 6 > 0
    champion[-5:] = True
    challenger = np.ones(205, dtype=bool)
    challenger[-2:] = False
    verdict = judge(assessment(model(challenger, truth), model(champion, truth, digest="2" * 64)), GateConfig())
    assert verdict.outcome == "promote", verdict.reason


def test_many_small_classes_do_not_reject_by_chance() -> None:
    random = np.random.default_rng(0)
    rejected = 0
    for _ in range(100):
        per_class = {}
        for label in range(60):
            both = random.uniform(size=(2, 8)) < 0.85
            wins, losses = int((both[0] & ~both[1]).sum()), int((both[1] & ~both[0]).sum())
            per_class[str(label)] = PairedCounts(images=8, wins=wins, losses=losses)
        overall = PairedCounts(images=480, wins=50, losses=48)
        base = evaluate(model(np.ones(10, dtype=bool), np.arange(10) % 5))
        comparison = Comparison(overall=overall, shared=overall, per_class=per_class)
        champion = base.model_copy(update={"digest": "2" * 64})
        verdict = judge(Assessment(challenger=base, champion=champion, comparison=comparison), GateConfig())
        rejected += verdict.outcome == "reject"
    assert rejected <= 5


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"size": 300_000_000}, "model size"),
        ({"size": 60_000_000}, "size against the champion's"),
        ({"median": 300.0}, "latency"),
        ({"median": 40.0}, "latency against the champion's"),
    ],
)
def test_a_model_that_is_too_slow_or_too_large_is_rejected(changes: dict, name: str) -> None:
    truth = np.arange(200) % 5
    right = np.ones(200, dtype=bool)
    verdict = judge(assessment(model(right, truth, **changes), model(right, truth, digest="2" * 64)), GateConfig())
    assert verdict.outcome == "reject"
    assert name in failed(verdict)


def test_from_int8_back_to_float32_is_no_reason_to_reject() -> None:
    truth = np.arange(200) % 5
    right = np.ones(200, dtype=bool)
    champion = model(right, truth, digest="2" * 64, size=3_900_000, median=3.8)
    assert judge(assessment(model(right, truth), champion), GateConfig()).outcome == "promote"


def first(images: int, accuracy: float) -> Evaluation:
    truth = np.arange(images) % 5
    right = np.zeros(images, dtype=bool)
    right[: round(images * accuracy)] = True
    return evaluate(model(right, truth))


def test_a_first_model_must_beat_the_commonest_class() -> None:
    assert judge(Assessment(challenger=first(100, 0.9)), GateConfig()).outcome == "promote"
    useless = judge(Assessment(challenger=first(100, 0.2)), GateConfig())
    assert useless.outcome == "reject"
    close = judge(Assessment(challenger=first(15, 0.4)), GateConfig(first_macro_recall=0.1))
    assert close.outcome == "inconclusive"
    assert judge(Assessment(challenger=first(100, 0.9)), GateConfig(first_accuracy=0.95)).outcome != "promote"
    assert judge(Assessment(challenger=first(100, 0.9)), GateConfig(first_macro_recall=0.95)).outcome == "reject"


def test_a_new_label_is_judged_on_the_old_ones_and_says_so() -> None:
    truth = np.arange(400) % 5
    right = np.arange(400) % 10 > 0
    champion = model(right, np.where(truth == 4, 0, truth), labels=LABELS[:4], digest="2" * 64)
    champion = Predictions(
        model(right, truth).images,
        LABELS[:4],
        champion.probabilities,
        model(right, truth).images.targets(LABELS[:4]),
        "m",
        "2" * 64,
        13_000_000,
        champion.latency,
    )
    verdict = judge(assessment(model(right, truth), champion), GateConfig())
    assert verdict.outcome == "promote", verdict.reason
    assert "new: e" in verdict.reason
    assert "320 images" in verdict.reason
    ruined = right.copy()
    ruined[truth == 0] = False
    ruined[(truth == 4)] = True
    assert judge(assessment(model(ruined, truth), champion), GateConfig()).outcome == "reject"


def test_a_champion_that_knows_none_of_the_labels_is_no_yardstick() -> None:
    truth = np.arange(100) % 5
    stranger = model(truth < 0, truth)
    stranger = Predictions(
        stranger.images, ("x", "y"), np.tile([0.6, 0.4], (100, 1)), np.full(100, -1), "m", "2" * 64, 1, None
    )
    verdict = judge(assessment(model(truth >= 0, truth), stranger), GateConfig())
    assert verdict.outcome == "promote"
    assert "none of these labels" in verdict.reason


def test_without_test_images_there_is_no_verdict() -> None:
    nobody = model(np.zeros(0, dtype=bool), np.zeros(0, dtype=int))
    assert judge(Assessment(challenger=evaluate(nobody)), GateConfig()).outcome == "inconclusive"


def test_every_limit_is_described_and_an_unknown_or_impossible_one_refused() -> None:
    assert all(field.description for field in GateConfig.model_fields.values())
    for wrong in ({"margn": 0.1}, {"margin": 0}, {"confidence": 1.0}):
        with pytest.raises(ValidationError):
            GateConfig(**wrong)
