"""What models answer on a split of a manifest: read, checked, decoded once, and given to every model asked."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model.bundle.read import open_bundle
from model.data.decoding import Pixels, Preprocessing, decode
from model.data.sources import read_bytes
from model.errors import ImageRejected, SourceUnreadable
from model.evaluation.metrics import Floats, Integers
from model.values import Frozen

if TYPE_CHECKING:
    import pandas as pd

BATCH: Final = 32
READERS: Final = 4
WARM_UP: Final = 5
LATENCY_RUNS: Final = 40

Answer = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""A model as a function: uint8 [batch, size, size, 3] -> float [batch, classes]."""


class Latency(Frozen):
    """Milliseconds for one image, decoding not included, on one thread of the measuring machine."""

    median: float
    p95: float
    runs: int = Field(ge=1)


@dataclass(frozen=True)
class Images:
    """Rows of one split, each content once: what several models are asked about.

    Attributes:
        paths: Relative to the source.
        labels: True label of each image.
        sha256s: Of the files' bytes.
    """

    source_uri: str
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    sha256s: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def targets(self, labels: Sequence[str]) -> Integers:
        """Position of each true label in `labels`; -1 where it isn't there."""
        places = {label: index for index, label in enumerate(labels)}
        return np.array([places.get(label, -1) for label in self.labels], dtype=np.int64)

    def first(self, count: int) -> "Images":
        """`count` images evenly spread over the whole."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        return Images(
            self.source_uri,
            *(tuple(values[i] for i in chosen) for values in (self.paths, self.labels, self.sha256s)),
        )

    def read(self, position: int) -> bytes:
        """The bytes of one image.

        Raises:
            SourceUnreadable: It has gone, or has other bytes than when the manifest was made.
        """
        path = self.paths[position]
        try:
            data = read_bytes(self.source_uri, path)
        except OSError as error:
            raise SourceUnreadable(
                f"{path} of {self.source_uri} can't be read any more: {error}.",
                next_step="Bring the file back, or build the manifest again.",
            ) from error
        if hashlib.sha256(data).hexdigest() != self.sha256s[position]:
            raise SourceUnreadable(
                f"{path} of {self.source_uri} has changed since the manifest was made.",
                next_step="Bring the former file back, or build the manifest again.",
            )
        return data


@dataclass(frozen=True)
class Predictions:
    """One model's answers.

    Attributes:
        probabilities: [n, classes] in the order of `labels`.
        targets: [n], -1 for an image whose label this model doesn't know.
        name: Of the model.
        digest: Of its bundle; empty before it is sealed.
        size_bytes: Of the served ONNX file.
    """

    images: Images
    labels: tuple[str, ...]
    probabilities: Floats
    targets: Integers
    name: str = ""
    digest: str = ""
    size_bytes: int = 0
    latency: Latency | None = None

    @property
    def hits(self) -> NDArray[np.bool_]:
        return np.asarray(self.probabilities.argmax(axis=1) == self.targets)

    @property
    def predicted(self) -> list[str]:
        return [self.labels[index] for index in self.probabilities.argmax(axis=1)]


def select_images(frame: "pd.DataFrame", source_uri: str, split: str) -> Images:
    """The decodable images of a split, exact duplicates once, in the order of their content hash."""
    chosen = frame[(frame["split"] == split) & frame["error"].isna()]
    chosen = chosen.drop_duplicates("sha256").sort_values("sha256")
    return Images(source_uri, tuple(chosen["path"]), tuple(chosen["label"]), tuple(chosen["sha256"]))


def pixels_of(images: Images, preprocessing: Sequence[Preprocessing]) -> Iterator[list[NDArray[np.uint8]]]:
    """Batches in order: for each preprocessing one uint8 [batch, size, size, 3]; each file is read once.

    Raises:
        SourceUnreadable: See `Images.read`; or an image that could be decoded once can't be any more.
    """

    def load(position: int) -> list[Pixels]:
        data = images.read(position)
        try:
            return [decode(data, each) for each in preprocessing]
        except ImageRejected as error:
            raise SourceUnreadable(f"{images.paths[position]} can't be decoded: {error}") from error

    with ThreadPoolExecutor(READERS, thread_name_prefix="decode") as pool:
        for start in range(0, len(images), BATCH):
            batch = range(start, min(start + BATCH, len(images)))
            decoded = list(pool.map(load, batch))
            yield [np.stack(column) for column in zip(*decoded, strict=True)]


def ask(models: Sequence[tuple[Preprocessing, Answer]], images: Images) -> list[Floats]:
    """Every model's answer to every image, one array [n, classes] a model (shape (0, 0) without images)."""
    distinct = list(dict.fromkeys(preprocessing for preprocessing, _ in models))
    answers: list[list[NDArray[np.floating]]] = [[] for _ in models]
    for pixels in pixels_of(images, distinct):
        for collected, (preprocessing, answer) in zip(answers, models, strict=True):
            collected.append(answer(pixels[distinct.index(preprocessing)]))
    return [np.concatenate(each).astype(np.float64) if each else np.zeros((0, 0)) for each in answers]


def open_session(model: Path, *, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU; 0 threads means as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Idle threads that spin take the cores from decoding, and from torch in the same process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def onnx_answer(model: Path) -> Answer:
    session = open_session(model)
    return lambda pixels: np.asarray(session.run(None, {"images": pixels})[0])


def measure_latency(models: Sequence[Path], sizes: Sequence[int], *, runs: int = LATENCY_RUNS) -> list[Latency]:
    """Single-image latency of several ONNX files, warm, one thread each.

    They take turns image by image, so that what else the machine does slows all of them alike.
    """
    sessions = [open_session(model, threads=1) for model in models]
    random = np.random.default_rng(0)
    inputs = [random.integers(0, 256, (1, size, size, 3), dtype=np.uint8) for size in sizes]
    times: list[list[float]] = [[] for _ in models]
    for _ in range(WARM_UP + runs):
        for session, pixels, collected in zip(sessions, inputs, times, strict=True):
            started = time.perf_counter()
            session.run(None, {"images": pixels})
            collected.append((time.perf_counter() - started) * 1000)
    return [
        Latency(median=float(np.median(each[WARM_UP:])), p95=float(np.quantile(each[WARM_UP:], 0.95)), runs=runs)
        for each in times
    ]


def score_bundles(
    bundles: Sequence[Path], frame: "pd.DataFrame", source_uri: str, *, split: str = "test"
) -> list[Predictions]:
    """Score several bundles on identical images, each file read once.

    Args:
        bundles: Their directories; verified before use.
        frame: A manifest; rows with an error are left out and exact duplicates counted once.
        source_uri: What its paths are relative to.
        split: Which rows.

    Raises:
        BundleCorrupt: See `open_bundle`.
        SourceUnreadable: See `pixels_of`.
    """
    opened = [open_bundle(path) for path in bundles]
    images = select_images(frame, source_uri, split)
    answers = ask([(bundle.preprocessing, onnx_answer(bundle.model)) for bundle in opened], images)
    latencies = measure_latency([each.model for each in opened], [each.preprocessing.size for each in opened])
    return [
        Predictions(
            images=images,
            labels=bundle.labels,
            probabilities=probabilities.reshape(len(images), len(bundle.labels)),
            targets=images.targets(bundle.labels),
            name=bundle.name,
            digest=bundle.digest,
            size_bytes=bundle.model.stat().st_size,
            latency=latency,
        )
        for bundle, probabilities, latency in zip(opened, answers, latencies, strict=True)
    ]
