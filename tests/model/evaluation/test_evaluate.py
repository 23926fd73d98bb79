import numpy as np
import pandas as pd
import pytest

from model.errors import SourceUnreadable
from model.evaluation.evaluate import Evaluation, assess, compare, evaluate
from model.evaluation.metrics import (
    PairedCounts,
    accuracy_interval,
    brier_score,
    difference_bound,
    difference_interval,
    expected_calibration_error,
    log_loss,
    reliability,
    wilson_interval,
)
from model.evaluation.predictions import Images, Predictions, score_bundles, select_images
from model.export.calibration import fit_temperature, softmax
from tests.support.bundles import colour_image, make_bundle


def predictions(truth: list[str], answers: list[str], labels: tuple[str, ...], confidence: float = 0.9) -> Predictions:
    """A model that gives each answer with the same confidence."""
    names = tuple(f"{at}.png" for at in range(len(truth)))
    images = Images("memory://", names, tuple(truth), names)
    rest = (1 - confidence) / (len(labels) - 1)
    probabilities = np.full((len(truth), len(labels)), rest)
    probabilities[np.arange(len(truth)), [labels.index(answer) for answer in answers]] = confidence
    return Predictions(images, labels, probabilities, images.targets(labels))


def test_the_numbers_of_a_small_evaluation_are_those_of_a_hand_count() -> None:
    result = evaluate(predictions(list("aaaabbcc"), list("aaabbbca"), ("a", "b", "c")))
    assert result.images == 8
    assert result.accuracy.value == 6 / 8
    assert result.confusion == ((3, 1, 0), (0, 2, 0), (1, 0, 1))
    a = result.per_class["a"]
    assert (a.precision, a.recall.value, a.support) == (3 / 4, 3 / 4, 4)
    assert result.per_class["b"].f1 == pytest.approx(2 * 2 / (2 + 3))
    assert result.macro_recall == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)
    assert result.majority_share == 0.5
    assert result.ece == pytest.approx(0.9 - 6 / 8)
    assert result.log_loss == pytest.approx((6 * -np.log(0.9) + 2 * -np.log(0.05)) / 8)
    assert result.brier == pytest.approx((6 * (0.01 + 2 * 0.05**2) + 2 * (0.9**2 + 0.95**2 + 0.05**2)) / 8)
    assert {(each.label, each.predicted) for each in result.worst} == {("a", "b"), ("c", "a")}
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


def test_images_on_which_two_models_disagree_come_by_who_is_right() -> None:
    truth = list("aaaabbcc")
    mine = predictions(truth, list("aaabbacb"), ("a", "b", "c"))
    theirs = predictions(truth, list("aabcbbcc"), ("a", "b", "c"), confidence=0.8)
    theirs.probabilities[7] = [0.01, 0.01, 0.98]
    found = compare(mine, theirs)
    assert found.differ == 4
    told = [(each.path, each.label, each.challenger, each.champion) for each in found.disagreements]
    # Only the champion is right (surest first), only the challenger is, neither is.
    assert told == [
        ("7.png", "c", "b", "c"),
        ("5.png", "b", "a", "b"),
        ("2.png", "a", "a", "b"),
        ("3.png", "a", "b", "c"),
    ]
    assert found.disagreements[0].challenger_confidence == pytest.approx(0.9)
    assert found.disagreements[0].champion_confidence == pytest.approx(0.98)


def test_of_many_disagreements_eight_of_a_kind_are_shown() -> None:
    right = predictions(list("ab" * 20), list("ab" * 20), ("a", "b"))
    found = compare(right, predictions(list("ab" * 20), list("ba" * 20), ("a", "b")))
    assert (found.differ, len(found.disagreements)) == (40, 8)


def test_the_worst_mistakes_come_most_confident_first() -> None:
    made = predictions(list("ab" * 20), list("ba" * 20), ("a", "b"))
    made.probabilities[7] = [0.99, 0.01]
    made.probabilities[8] = [0.4, 0.6]
    worst = evaluate(made).worst
    assert (worst[0].path, worst[0].confidence) == ("7.png", pytest.approx(0.99))
    assert len(worst) == 12
    assert "8.png" not in {each.path for each in worst}


def test_the_accuracy_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    for images, truth in ((45, 0.88), (45, 0.97), (400, 0.7)):
        hits = random.binomial(images, truth, 300)
        intervals = [accuracy_interval(int(count), images, seed=at) for at, count in enumerate(hits)]
        covered = np.mean([each.low <= truth <= each.high for each in intervals])
        assert covered >= 0.91, (images, truth, covered)
        assert all(each.low <= each.value <= each.high for each in intervals)


def test_no_mistake_on_few_images_is_not_certainty() -> None:
    assert accuracy_interval(40, 40).low < 0.97
    assert accuracy_interval(4000, 4000).low > 0.997
    assert difference_interval(PairedCounts(images=40, wins=0, losses=0)).low < -0.02
    assert wilson_interval(5, 5).low == pytest.approx(0.566, abs=0.001)


def test_the_interval_of_the_difference_is_that_of_resampled_images() -> None:
    counts = PairedCounts(images=400, wins=40, losses=20)
    random = np.random.default_rng(0)
    scores = np.repeat([1, -1, 0], [40, 20, 340])
    means = scores[random.integers(0, 400, (4000, 400))].mean(axis=1)
    interval = difference_interval(counts)
    assert interval.low == pytest.approx(np.quantile(means, 0.05), abs=0.006)
    assert interval.high == pytest.approx(np.quantile(means, 0.95), abs=0.006)
    assert difference_bound(counts, alpha=0.05, upper=True) == pytest.approx(interval.high, abs=0.006)
    assert difference_bound(counts, alpha=0.05, upper=False) == pytest.approx(interval.low, abs=0.006)


def test_the_same_answers_give_the_same_evaluation() -> None:
    made = predictions(list("aabb" * 9), list("abab" * 9), ("a", "b"))
    assert evaluate(made, seed=5) == evaluate(made, seed=5)


def test_calibration_bins_hold_enough_images_to_mean_something() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 20_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    targets = (random.uniform(size=20_000) > confidence).astype(np.int64)
    assert expected_calibration_error(reliability(probabilities, targets)) < 0.02
    for images in (1, 9, 25, 48):
        bins = reliability(probabilities[:images], targets[:images])
        assert sum(each.images for each in bins) == images
        assert len(bins) <= max(1, images // 10)
    assert reliability(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)) == []


def test_temperature_scaling_finds_the_temperature_that_was_hidden() -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (5000, 6))
    targets = np.array([random.choice(6, p=row) for row in softmax(honest)])
    for hidden in (0.4, 1.0, 3.0):
        found = fit_temperature(honest * hidden, targets)
        assert found == pytest.approx(hidden, rel=0.06)
    overconfident = softmax(honest * 3)
    assert log_loss(softmax(honest * 3, found), targets) < log_loss(overconfident, targets)
    assert brier_score(softmax(honest * 3, found), targets) < brier_score(overconfident, targets)
    before = expected_calibration_error(reliability(overconfident, targets))
    assert expected_calibration_error(reliability(softmax(honest * 3, found), targets)) < before / 4


def test_a_flawless_validation_does_not_make_the_model_infinitely_sure() -> None:
    logits = np.eye(3)[np.arange(30) % 3] * 5
    targets = np.arange(30) % 3
    assert fit_temperature(logits, targets) > 0.25
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 1.0
    assert np.isfinite(softmax(np.array([[1e4, -1e4]]))).all()


def test_models_with_other_labels_are_compared_on_what_both_know() -> None:
    truth = list("aabbcc")
    challenger = predictions(truth, list("aabbca"), ("a", "b", "c"))
    champion = predictions(truth, list("aabdab"), ("a", "b", "d"))
    found = compare(challenger, champion)
    assert (found.added, found.removed) == (("c",), ("d",))
    assert (found.shared.images, found.shared.wins, found.shared.losses) == (4, 1, 0)
    assert (found.overall.images, found.overall.wins, found.overall.losses) == (6, 2, 0)
    assert set(found.per_class) == {"a", "b"}
    scored = evaluate(champion)
    assert scored.labels == ("a", "b", "d", "c")
    assert scored.accuracy.value == 3 / 6
    assert scored.per_class["c"].recall.value == 0


def test_answers_to_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different images"):
        compare(predictions(["a"], ["a"], ("a", "b")), predictions(["a", "b"], ["a", "b"], ("a", "b")))


@pytest.fixture
def source(tmp_path):
    """A source and its manifest: 12 readable test images, one of them twice, one broken, one for training."""
    rows = []
    for at, label in enumerate(("blue", "green", "red") * 4):
        rows.append((f"{label}{at}.png", label, "test", colour_image(label, size=(40 + at, 40)), None))
    rows.append(("again.png", "blue", "test", rows[0][3], None))
    rows.append(("broken.png", "red", "", b"no image", "The bytes are not an image."))
    rows.append(("learnt.png", "red", "train", colour_image((201, 20, 20)), None))
    import hashlib

    for name, _, _, data, _ in rows:
        (tmp_path / name).write_bytes(data)
    frame = pd.DataFrame(
        [(name, label, split, hashlib.sha256(data).hexdigest(), error) for name, label, split, data, error in rows],
        columns=["path", "label", "split", "sha256", "error"],
    )
    return frame, str(tmp_path)


def test_each_readable_test_image_counts_once(source, tmp_path) -> None:
    frame, uri = source
    assert len(select_images(frame, uri, "test")) == 12
    make_bundle(tmp_path / "bundle")
    [scored] = score_bundles([tmp_path / "bundle"], frame, uri)
    result = evaluate(scored)
    assert (result.images, result.accuracy.value, result.worst) == (12, 1.0, ())
    assert result.latency is not None
    assert 0 < result.latency.median <= result.latency.p95
    assert result.size_bytes == (tmp_path / "bundle" / "model.onnx").stat().st_size


def test_champion_and_challenger_are_asked_about_identical_images(source, tmp_path) -> None:
    frame, uri = source
    make_bundle(tmp_path / "good")
    # Always answers blue, sees other sizes, and knows one label more.
    make_bundle(tmp_path / "bad", labels=("blue", "green", "red", "white"), bias=1000.0, size=48)
    mine, theirs = score_bundles([tmp_path / "good", tmp_path / "bad"], frame, uri)
    assert mine.images.sha256s == theirs.images.sha256s
    assert mine.probabilities.shape == (12, 3)
    assert theirs.probabilities.shape == (12, 4)
    found = assess(tmp_path / "good", tmp_path / "bad", frame, uri)
    assert found.comparison is not None
    assert (found.comparison.overall.wins, found.comparison.overall.losses) == (8, 0)
    assert found.comparison.removed == ("white",)
    assert found.champion is not None
    assert found.champion.accuracy.value == 4 / 12
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_an_image_that_vanished_or_changed_since_the_manifest_is_named(source, tmp_path) -> None:
    frame, uri = source
    make_bundle(tmp_path / "bundle")
    (tmp_path / "green1.png").write_bytes(colour_image("red"))
    with pytest.raises(SourceUnreadable, match=r"green1\.png .* has changed"):
        score_bundles([tmp_path / "bundle"], frame, uri)
    (tmp_path / "green1.png").unlink()
    with pytest.raises(SourceUnreadable, match=r"green1\.png"):
        score_bundles([tmp_path / "bundle"], frame, uri)
