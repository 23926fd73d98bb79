"""Writing a bundle: its index last."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.bundle.read import INDEX, BundleRef, Index, Lineage, digest_of, files_in, image_signature, sha256_of
from model.data.decoding import Preprocessing


def write_json(path: Path, value: Any) -> None:
    """Write canonical, readable JSON: same value, same bytes."""
    path.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
        directory: Usually from `model.files.staged`.
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
