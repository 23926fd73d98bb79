"""The bundle: the unit that moves from training to the registry and from there to every endpoint.

A directory of the ONNX model, its preprocessing, labels, signature, golden images with expected answers, metrics,
lineage and model card. `bundle.json` lists the sha256 of each file; the digest is the sha256 over that list. This
module reads it, without torch, pandas or onnx: the scoring service imports it. `model.bundle.write` writes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, TypeAdapter, ValidationError

from model.data.decoding import Preprocessing
from model.errors import BundleCorrupt
from model.values import Frozen

INDEX: Final = "bundle.json"
FORMAT: Final = 1
GOLDEN_TOLERANCE: Final = 0.02
"""How far a probability of a golden image may be off: other processors and image libraries round differently."""

Value = TypeVar("Value")


class Lineage(Frozen):
    """What a model was made from: enough to make it again."""

    data_version: str = Field(description="Hash of the manifest, 16 hex digits.")
    data_uri: str = Field(description="Where the manifest is stored.")
    code: str = Field(description="Commit of the code, with `-dirty` where it had changes.")
    config_hash: str = Field(description="Hash over the training configuration.")
    seed: int
    environment: dict[str, str] = Field(default_factory=dict, description="Versions of what trained it.")


class BundleRef(Frozen):
    """Where a sealed bundle lies and which bytes it holds."""

    path: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str


class TensorSpec(Frozen):
    """One input or output of the ONNX graph; a name in `shape` is a free dimension."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]


class Signature(Frozen):
    """What the served ONNX file takes and answers.

    Repeats the name and the served file of `bundle.json`, so that the digest covers them too.
    """

    name: str
    served: str
    input: TensorSpec
    output: TensorSpec


class Index(Frozen):
    """`bundle.json`. Its `measured` is about the machine that built the bundle, hence not part of the digest."""

    format: Literal[1] = FORMAT
    name: str = Field(min_length=1)
    served: str
    files: dict[str, str]
    digest: str
    measured: dict[str, float] = Field(default_factory=dict)


class _GoldenEntry(Frozen):
    file: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class GoldenImage:
    """An image with the answer that the served model must give, here and on every other machine."""

    path: Path
    probabilities: tuple[float, ...]

    def read(self) -> bytes:
        return self.path.read_bytes()

    def matches(self, probabilities: ArrayLike) -> bool:
        """Whether an answer (in label order) names the same class, within `GOLDEN_TOLERANCE` of the expected one."""
        given, expected = np.asarray(probabilities, dtype=np.float64), np.asarray(self.probabilities)
        return (
            given.shape == expected.shape
            and int(given.argmax()) == int(expected.argmax())
            and bool(np.abs(given - expected).max() <= GOLDEN_TOLERANCE)
        )


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        model: The ONNX file to serve.
        golden: Images with expected answers; may be empty only where no image was answered correctly.
        metrics: `metrics.json` as written by `model.export.build`.
        measured: Seconds, milliseconds and bytes measured on the machine that built it.
    """

    path: Path
    name: str
    digest: str
    model: Path
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    signature: Signature
    golden: tuple[GoldenImage, ...]
    lineage: Lineage
    metrics: dict[str, Any]
    measured: dict[str, float]

    @property
    def ref(self) -> BundleRef:
        return BundleRef(path=str(self.path), digest=self.digest, name=self.name)


def image_signature(name: str, served: str, *, size: int, classes: int) -> Signature:
    """The signature every bundle of this format has: uint8 NHWC in, probabilities out, any batch."""
    return Signature(
        name=name,
        served=served,
        input=TensorSpec(name="images", dtype="uint8", shape=("batch", size, size, 3)),
        output=TensorSpec(name="probabilities", dtype="float32", shape=("batch", classes)),
    )


def digest_of(files: Mapping[str, str]) -> str:
    """The sha256 over the canonical JSON (sorted keys, no spaces) of relative path -> sha256."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def open_bundle(path: Path, *, verify: bool = True, digest: str | None = None) -> Bundle:
    """Read a bundle.

    Args:
        path: Its directory.
        verify: Hash every file and compare it with the index. False only where that was done a moment ago.
        digest: What the caller expects, e.g. from the registry.

    Raises:
        BundleCorrupt: Files are missing, changed or not in the index, the index or its digest is not what it should
            be, or the parts don't fit each other. The message names the file.
    """
    index = _read(path, INDEX, TypeAdapter(Index))
    _check_digest(path, index, digest)
    _check_files(path, index, verify=verify)
    labels = _read(path, "labels.json", TypeAdapter(tuple[str, ...]))
    signature = _read(path, "signature.json", TypeAdapter(Signature))
    preprocessing = _read(path, "preprocessing.json", TypeAdapter(Preprocessing))
    golden = _read(path, "golden.json", TypeAdapter(tuple[_GoldenEntry, ...]))
    _check_parts(path, index, labels, preprocessing, signature, golden)
    return Bundle(
        path=path,
        name=index.name,
        digest=index.digest,
        model=path / index.served,
        labels=labels,
        preprocessing=preprocessing,
        signature=signature,
        golden=tuple(GoldenImage(path / entry.file, entry.probabilities) for entry in golden),
        lineage=_read(path, "lineage.json", TypeAdapter(Lineage)),
        metrics=_read(path, "metrics.json", TypeAdapter(dict[str, Any])),
        measured=index.measured,
    )


def _read(directory: Path, file: str, adapter: TypeAdapter[Value]) -> Value:
    try:
        return adapter.validate_json((directory / file).read_bytes())
    except FileNotFoundError as error:
        raise BundleCorrupt(f"The bundle {directory} has no {file}.") from error
    except OSError as error:
        raise BundleCorrupt(f"{file} of the bundle {directory} can't be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        cause = f"{where}: {first['msg']}" if where else first["msg"]
        raise BundleCorrupt(f"{file} of the bundle {directory} is not what it should be ({cause}).") from error


def _check_digest(path: Path, index: Index, expected: str | None) -> None:
    actual = digest_of(index.files)
    if actual != index.digest:
        raise BundleCorrupt(
            f"{INDEX} of the bundle {path} names the digest {index.digest[:12]}; its list of files has {actual[:12]}."
        )
    if expected is not None and expected != actual:
        raise BundleCorrupt(f"The bundle {path} has the digest {actual[:12]}; {expected[:12]} was asked for.")


def _check_files(path: Path, index: Index, *, verify: bool) -> None:
    for relative in index.files:
        pure = PurePosixPath(relative)
        odd = pure.is_absolute() or not pure.parts or ".." in pure.parts or str(pure) != relative
        if odd or "\\" in relative or relative == INDEX:
            raise BundleCorrupt(f"{INDEX} of the bundle {path} lists {relative!r}, which is no path inside a bundle.")
    present = files_in(path)
    if missing := sorted(set(index.files) - present):
        raise BundleCorrupt(f"The bundle {path} lacks {_some(missing)}.")
    if extra := sorted(present - set(index.files) - {INDEX}):
        raise BundleCorrupt(f"The bundle {path} holds {_some(extra)}, which {INDEX} doesn't list.")
    if verify:
        changed = sorted(relative for relative, sha256 in index.files.items() if sha256_of(path / relative) != sha256)
        if changed:
            raise BundleCorrupt(f"The bytes of {_some(changed)} in the bundle {path} are not those of its digest.")


def _check_parts(
    path: Path,
    index: Index,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    signature: Signature,
    golden: tuple[_GoldenEntry, ...],
) -> None:
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise BundleCorrupt(f"labels.json of the bundle {path} needs two or more different labels.")
    if index.served not in index.files:
        raise BundleCorrupt(f"The bundle {path} serves {index.served!r}, which is not among its files.")
    if signature != image_signature(index.name, index.served, size=preprocessing.size, classes=len(labels)):
        raise BundleCorrupt(
            f"signature.json of the bundle {path} doesn't fit its {INDEX}, preprocessing.json and labels.json."
        )
    for entry in golden:
        if entry.file not in index.files or len(entry.probabilities) != len(labels):
            raise BundleCorrupt(f"golden.json of the bundle {path} has an entry {entry.file!r} that doesn't fit it.")


def files_in(directory: Path) -> set[str]:
    """Relative paths of all files; a link is none of ours and raises."""
    found = set()
    for entry in directory.rglob("*"):
        relative = entry.relative_to(directory).as_posix()
        if entry.is_symlink():
            raise BundleCorrupt(f"The bundle {directory} holds {relative!r}, a symbolic link.")
        if not entry.is_dir():
            found.add(relative)
    return found


def sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleCorrupt(f"{path} can't be read: {error}.") from error


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
