"""Writing a bundle: nothing half-done is ever visible under its name."""

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from model.bundle.read import INDEX, BundleRef, Index, Lineage, digest_of, files_in, image_signature, sha256_of
from model.data.decoding import Preprocessing

FORMER: Final = ".former"


def write_json(path: Path, value: Any) -> None:
    """Write canonical, readable JSON: same value, same bytes."""
    path.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A temporary directory beside `directory` that takes its place when the block ends without an error.

    What was at `directory` before stays whole until then. What a killed process left beside it goes first.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _turn(directory.parent):
        _sweep(directory)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        lock = _lock(staging)
    try:
        staging.chmod(0o755)
        yield staging
        with _turn(directory.parent):
            if directory.exists():
                former = staging.with_name(f"{staging.name}{FORMER}")
                directory.rename(former)
                staging.rename(directory)
                shutil.rmtree(former, ignore_errors=True)
            else:
                staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _turn(parent: Path) -> Iterator[None]:
    """Nobody sweeps while a staging directory has no lock yet, or what it replaces has no name."""
    lock = _lock(parent)
    try:
        yield
    finally:
        os.close(lock)


def _lock(directory: Path, how: int = fcntl.LOCK_EX) -> int:
    """A lock that ends with the process, or when the descriptor is closed; names may change meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(directory: Path) -> None:
    """Remove the staging directories of processes that are gone; what they had moved aside comes back."""
    random = "?" * 8  # as mkdtemp makes it, so that a sibling called `{directory.name}.more` isn't meant
    staging = f".{glob.escape(directory.name)}.{random}"
    for left in (*directory.parent.glob(staging), *directory.parent.glob(f"{staging}{FORMER}")):
        try:
            lock = _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or gone meanwhile
            continue
        if left.suffix == FORMER and not directory.exists():
            left.rename(directory)
        else:
            shutil.rmtree(left, ignore_errors=True)
        os.close(lock)


def seal(
    directory: Path,
    *,
    name: str,
    served: str,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    golden: Mapping[str, tuple[float, ...]],
    lineage: Lineage,
    metrics: Mapping[str, Any],
    measured: Mapping[str, float] | None = None,
) -> BundleRef:
    """Write the JSON files of a bundle whose models, golden images and plots are in `directory`, and its index last.

    Args:
        directory: Usually from `staged`.
        name: Name of the model.
        served: The ONNX file to serve, relative to `directory`.
        labels: In the order of the model's output.
        preprocessing: How images become its input.
        golden: Relative path of each golden image -> expected probabilities in label order.
        lineage: What the model was made from.
        metrics: JSON values; nothing that differs between two builds from the same inputs.
        measured: What does differ (times); kept beside the digest.
    """
    entries = [{"file": file, "probabilities": list(golden[file])} for file in sorted(golden)]
    signature = image_signature(name, served, size=preprocessing.size, classes=len(labels))
    write_json(directory / "labels.json", list(labels))
    write_json(directory / "preprocessing.json", preprocessing.model_dump(mode="json"))
    write_json(directory / "signature.json", signature.model_dump(mode="json"))
    write_json(directory / "golden.json", entries)
    write_json(directory / "lineage.json", lineage.model_dump(mode="json"))
    write_json(directory / "metrics.json", dict(metrics))
    files = {relative: sha256_of(directory / relative) for relative in sorted(files_in(directory) - {INDEX})}
    index = Index(name=name, served=served, files=files, digest=digest_of(files), measured=dict(measured or {}))
    for relative in files:
        _flush(directory / relative)
    write_json(directory / INDEX, index.model_dump(mode="json"))
    _flush(directory / INDEX)
    return BundleRef(path=str(directory), digest=index.digest, name=name)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
