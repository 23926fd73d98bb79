import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.evaluation.evaluate import Assessment, Evaluation, Mistake, compare, evaluate
from model.evaluation.plots import (
    class_bars,
    confusions,
    disagreements_sheet,
    draw_comparison,
    draw_evaluation,
    mistakes_sheet,
    reliability_diagram,
    shadow_sheet,
    training_curves,
)
from model.evaluation.predictions import Images, Predictions
from model.evaluation.shadow_agreement import Answer, Pair
from tests.support.bundles import colour_image

ODD = ("a/b", "🍎 apple", "非常に長い日本語のラベルです", "$x^2$ and a very long label that has no end", "<b>", "👩‍🌾")


def evaluation(labels: tuple[str, ...], images: int = 120, *, flawless: bool = False) -> Evaluation:
    random = np.random.default_rng(0)
    truth = random.integers(0, len(labels), images)
    probabilities = random.dirichlet(np.full(len(labels), 0.4), images)
    probabilities[np.arange(images), truth] += 50.0 if flawless else 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = tuple(str(at) for at in range(images))
    rows = Images("memory://", names, tuple(labels[at] for at in truth), names)
    return evaluate(Predictions(rows, labels, probabilities, rows.targets(labels)))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "PNG"
    return image


def is_drawn(data: bytes) -> bool:
    """More than an empty sheet."""
    return len(opened(data).convert("RGB").getcolors(1 << 24) or []) > 20


@pytest.fixture(autouse=True)
def _no_warning_is_overlooked():
    """Matplotlib only warns about a glyph that it can't draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("labels", [("cat", "dog"), ODD, tuple(f"class {at}" for at in range(80))])
def test_every_picture_is_drawn_for_any_labels(labels: tuple[str, ...]) -> None:
    result = evaluation(labels)
    for picture in (
        confusions({"": result}),
        reliability_diagram(result),
        class_bars(result),
        class_bars(result, result),
    ):
        assert is_drawn(picture)


def test_pictures_of_extreme_results_are_drawn_too() -> None:
    for result in (evaluation(("a", "b"), 1), evaluation(("a", "b"), 40, flawless=True)):
        for picture in (confusions({"": result}), reliability_diagram(result), class_bars(result)):
            assert is_drawn(picture)


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert confusions({"": evaluation(ODD)}) == confusions({"": evaluation(ODD)})


def test_a_champion_with_other_labels_is_drawn_where_both_know_a_class() -> None:
    assert is_drawn(class_bars(evaluation(("a", "b", "c")), evaluation(("b", "c", "d"))))


def test_curves_are_drawn_from_few_or_incomplete_epochs() -> None:
    row = {"epoch": 0, "train_loss": None, "validation_loss": 1.2, "validation_accuracy": 0.4, "seconds": 1.0}
    later = {"epoch": 1, "train_loss": 0.9, "validation_loss": 1.0, "validation_accuracy": 0.5, "learning_rate": 1e-3}
    for history in ([row], [row, later], [later, {"epoch": 2, "train_loss": float("nan")}]):
        assert is_drawn(training_curves(history))
    assert opened(training_curves([])).size[0] > 100


def test_mistakes_are_shown_with_their_images() -> None:
    mistakes = [
        Mistake(path=f"{at}.png", sha256="0", label=ODD[at % 6], predicted="b", confidence=0.9) for at in range(7)
    ]
    images = [colour_image((250, 10 * at, 3), size=(200, 60 + 20 * at)) for at in range(7)]
    sheet = opened(mistakes_sheet(list(zip(mistakes, images, strict=True)))).convert("RGB")
    shown = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    assert all(any(abs(r - 250) + abs(g - 10 * at) + abs(b - 3) < 6 for r, g, b in shown) for at in range(7))
    assert is_drawn(mistakes_sheet([(mistakes[0], b"broken")]))
    assert is_drawn(mistakes_sheet([]))


def test_images_on_which_two_models_disagree_are_shown() -> None:
    live = [Answer(probabilities={label: 0.9, "b": 0.1}) for label in ODD]
    pairs = [Pair(image=str(at), live=each, candidate=Answer(problem="broken-image")) for at, each in enumerate(live)]
    images = [colour_image((250, 10 * at, 3), size=(200, 60 + 20 * at)) for at in range(len(pairs))]
    sheet = opened(shadow_sheet(list(zip(pairs, images, strict=True)))).convert("RGB")
    shown = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    assert all(any(abs(r - 250) + abs(g - 10 * at) + abs(b - 3) < 6 for r, g, b in shown) for at in range(len(pairs)))
    assert is_drawn(shadow_sheet([(pairs[0], b"gone")]))


def test_an_evaluation_is_drawn_whole_even_where_its_images_have_gone(tmp_path: Path) -> None:
    found = Assessment(challenger=evaluation(("a", "b"), 60))
    assert found.challenger.worst
    pictures = draw_evaluation(found, str(tmp_path))
    assert set(pictures) == {"confusion-matrix", "recall-by-class", "reliability", "worst-mistakes"}
    assert all(is_drawn(picture) for picture in pictures.values())


def compared(labels: tuple[str, ...], images: int = 60) -> Assessment:
    """Two models of random answers on the same images."""
    random = np.random.default_rng(1)
    names = tuple(f"{at}.png" for at in range(images))
    rows = Images("memory://", names, tuple(labels[at % len(labels)] for at in range(images)), names)
    made = [
        Predictions(rows, labels, random.dirichlet(np.ones(len(labels)), images), rows.targets(labels)) for _ in "12"
    ]
    return Assessment(challenger=evaluate(made[0]), champion=evaluate(made[1]), comparison=compare(*made))


@pytest.mark.parametrize("labels", [("cat", "dog"), ODD, tuple(f"class {at}" for at in range(80))])
def test_two_models_are_drawn_side_by_side_even_where_their_images_have_gone(labels, tmp_path: Path) -> None:
    found = compared(labels)
    pictures = draw_comparison(found, ("v2", "v1, live"), str(tmp_path))
    assert set(pictures) == {"confusion-matrices", "disagreements"}
    assert all(is_drawn(picture) for picture in pictures.values())
    alone = opened(confusions({"": found.challenger})).size
    assert opened(pictures["confusion-matrices"]).size[0] > 1.5 * alone[0]


def test_models_that_agree_say_so() -> None:
    assert is_drawn(disagreements_sheet([], ("v2", "v1, live")))


def test_a_first_model_is_drawn_alone() -> None:
    pictures = draw_comparison(Assessment(challenger=evaluation(("a", "b"))), ("v1", ""), "nowhere")
    assert set(pictures) == {"confusion-matrices"}
    assert is_drawn(pictures["confusion-matrices"])


def test_drawing_leaves_pyplot_alone() -> None:
    before = "matplotlib.pyplot" in sys.modules
    confusions({"": evaluation(("a", "b"))})
    assert ("matplotlib.pyplot" in sys.modules) == before
