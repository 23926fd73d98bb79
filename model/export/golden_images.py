"""Golden images: what every copy of a model must answer before it takes traffic."""

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from model.data.decoding import Preprocessing, decode, open_image, to_rgb
from model.evaluation.predictions import Answer, Predictions

COUNT: Final = 10
LARGEST: Final = 256 * 1024
"""In bytes; a larger original is stored smaller."""
SUFFIXES: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


def choose_golden(predictions: Predictions, *, count: int = COUNT) -> list[int]:
    """Positions of up to `count` images that were answered correctly and surely, the classes taking turns.

    Where no answer was right, the surest ones: they still tell whether another machine computes the same.
    """
    confidence = predictions.probabilities.max(axis=1)
    right = np.flatnonzero(predictions.hits)
    candidates = right if len(right) else np.arange(len(confidence))
    answers = predictions.probabilities.argmax(axis=1)
    ranked = candidates[np.argsort(-confidence[candidates], kind="stable")]
    turn: dict[int, int] = {}
    turns = []
    for at in ranked:
        turns.append(turn.get(answers[at], 0))
        turn[answers[at]] = turns[-1] + 1
    order = np.argsort(np.array(turns), kind="stable")
    return sorted(int(at) for at in ranked[order][:count])


def write_golden(
    folder: Path, predictions: Predictions, answer: Answer, preprocessing: Preprocessing
) -> dict[str, tuple[float, ...]]:
    """Store the golden images under `folder/golden` with what the served model answers to the stored bytes.

    Returns:
        Relative path -> probabilities in label order.
    """
    (folder / "golden").mkdir()
    expected = {}
    for number, position in enumerate(choose_golden(predictions)):
        data = predictions.images.read(position)
        if len(data) > LARGEST:
            data = _smaller(data, preprocessing)
        relative = f"golden/{number:02d}{SUFFIXES[str(open_image(data).format)]}"
        (folder / relative).write_bytes(data)
        expected[relative] = tuple(float(value) for value in answer(decode(data, preprocessing)[None])[0])
    return expected


def _smaller(data: bytes, preprocessing: Preprocessing) -> bytes:
    """As a lossless PNG whose shorter edge is just what the network needs."""
    wanted = int(np.ceil(preprocessing.size / preprocessing.crop_fraction))
    rgb = to_rgb(open_image(data), at_least=wanted)
    scale = wanted / min(rgb.size)
    edges = [max(1, round(edge * scale)) for edge in rgb.size]
    # A panorama needs no more than its middle: the network sees the centre crop only.
    left, top = ((edge - min(edge, 2 * wanted)) / 2 for edge in edges)
    shrunk = rgb.resize((edges[0], edges[1]), Image.Resampling.BICUBIC) if scale < 1 else rgb
    if scale < 1:
        shrunk = shrunk.crop((int(left), int(top), edges[0] - int(left), edges[1] - int(top)))
    buffer = io.BytesIO()
    shrunk.save(buffer, "PNG")
    return buffer.getvalue()
