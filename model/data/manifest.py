"""The immutable list of a data set's images; its hash is the data version."""

import hashlib
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec

from model.data.folder_listing import Listed
from model.data.image_facts import Measured, measure
from model.data.sources import canonical_uri, is_local, list_source, read_bytes, source_exists, source_fingerprint
from model.data.splits import SPLITS, Content, Split, SplitConfig, assign_splits
from model.errors import InvalidConfig, SourceUnreadable
from model.files import write_whole
from model.values import DataVersion

if TYPE_CHECKING:
    import pandas as pd

# pandas and pyarrow are imported where they are used: the values are also for programs that read no manifest.
__all__ = [
    "COLUMNS",
    "SPLITS",
    "DataVersion",
    "Split",
    "SplitConfig",
    "build_manifest",
    "frozen_splits",
    "latest_manifest",
    "read_manifest",
    "source_fingerprint",
    "write_manifest",
]

MANIFEST: Final = "manifest.parquet"
COLUMNS: Final = ("path", "label", "split", *Measured._fields)
_VERSIONED: Final = ("path", "label", "split", "sha256", "bytes")
_NUMBERS: Final = ("bytes", "width", "height")
_SLICE: Final = 1024
_REMOTE_READERS: Final = 16
"""Threads that wait for a remote store: more than cores, since they mostly wait."""
_VANISHED: Final = "The file vanished between listing and reading."
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def build_manifest(
    source_uri: str,
    *,
    split: SplitConfig,
    frozen: Mapping[str, str] | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> "pd.DataFrame":
    """Hash, decode, measure and split every image of a source.

    Args:
        source_uri: A folder `root/<label>/<image>`, a CSV or Parquet manifest, or an fsspec URL of one of these.
        split: Shares and seed.
        frozen: Splits by sha256 that an earlier manifest decided (`frozen_splits`).
        workers: Threads (Pillow decodes outside of the interpreter lock); 0 means one a core, more for a remote store.
        progress: Called with (images done, images in all).

    Returns:
        One row an image, sorted by path, with the `COLUMNS`. An image at fault is a row with an `error` and without
        a split. `attrs["overlooked"]` names what lies in the source and is no image.

    Raises:
        SourceUnreadable: See `list_source`; or the whole source vanished while it was read.
    """
    import pandas as pd

    source_uri = canonical_uri(source_uri)
    images, overlooked = list_source(source_uri)
    measured: list[Measured] = []
    for result in _measure_all(source_uri, images, workers):
        measured.append(result)
        if progress is not None:
            progress(len(measured), len(images))
    frame = pd.DataFrame(measured, columns=pd.Index(Measured._fields))
    frame.insert(0, "path", [image.path for image in images])
    frame.insert(1, "label", [image.label for image in images])
    frame.insert(2, "split", _splits(images, measured, split, frozen or {}))
    frame.attrs["overlooked"] = overlooked
    return frame


def frozen_splits(frame: "pd.DataFrame") -> dict[str, str]:
    """The split of each content of a manifest, for the `frozen` of the next one."""
    known = frame[frame["split"] != ""]
    return dict(zip(known["sha256"], known["split"], strict=True))


def write_manifest(frame: "pd.DataFrame", *, root: str, name: str, source_uri: str) -> DataVersion:
    """Store a manifest under `root/name/<version>/manifest.parquet`, where it is never changed again.

    Args:
        frame: What `build_manifest` returned.
        root: Folder or fsspec URL of all data versions.
        name: Of the data set: letters, digits, dots, dashes and underscores.
        source_uri: What the paths are relative to.

    Raises:
        InvalidConfig: `name` can't be a folder's name.
        OSError: As the file system reports it; nothing half-written stays.
    """
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"`{name}` can't name a data set: letters, digits, dots, dashes and underscores only.")
    version = _version(frame)
    uri = f"{canonical_uri(root)}/{name}/{version}/{MANIFEST}"
    _store(_parquet(frame), uri)
    usable = frame[frame["split"] != ""]
    images = Counter(zip(usable["label"], usable["split"], strict=True))
    counts = {str(label): {str(part): images[label, part] for part in SPLITS} for label in sorted(set(usable["label"]))}
    return DataVersion(
        name=name,
        version=version,
        manifest_uri=uri,
        source_uri=canonical_uri(source_uri),
        images=len(usable),
        labels=tuple(counts),
        counts=counts,
    )


def latest_manifest(root: str, name: str) -> str | None:
    """The manifest of a data set that was stored last; None before the first."""
    folder = f"{canonical_uri(root)}/{name}"
    filesystem, path = fsspec.core.url_to_fs(folder)
    found = filesystem.find(path, maxdepth=2, detail=True)
    ages = {file: _stored_at(info) for file, info in found.items() if posixpath.basename(file) == MANIFEST}
    if not ages:
        return None
    version = posixpath.basename(posixpath.dirname(max(ages, key=ages.__getitem__)))
    return f"{folder}/{version}/{MANIFEST}"


def _stored_at(info: Mapping[str, Any]) -> Any:
    """In whichever word and type the store has for it."""
    return next(info[key] for key in ("mtime", "last_modified", "LastModified", "created") if info.get(key) is not None)


def read_manifest(uri: str) -> "pd.DataFrame":
    """A stored manifest as `build_manifest` returned it.

    Raises:
        SourceUnreadable: It is missing, damaged, or no manifest of ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    filesystem, path = fsspec.core.url_to_fs(uri)
    try:
        with filesystem.open(path, "rb") as file:
            table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceUnreadable(
            f"The data manifest {uri} can't be read: {error}.", next_step="Run the data validation again."
        ) from error
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise SourceUnreadable(f"{uri} is no data manifest: it has no column {', '.join(missing)}.")
    frame: pd.DataFrame = table.to_pandas()
    # Arrow's nulls come back as None or NaN, by the pandas version.
    frame["error"] = frame["error"].astype("object").where(frame["error"].notna(), None)
    frame.attrs["overlooked"] = json.loads((table.schema.metadata or {}).get(b"overlooked", b"[]"))
    return frame


def _measure_all(source_uri: str, images: list[Listed], workers: int) -> Iterator[Measured]:
    threads = workers or (os.cpu_count() or 1 if is_local(source_uri) else _REMOTE_READERS)
    with ThreadPoolExecutor(threads, thread_name_prefix="measure") as pool:
        # In slices: a future for each of a million images would cost more memory than the manifest.
        for start in range(0, len(images), _SLICE):
            part = images[start : start + _SLICE]
            vanished = 0
            for result in pool.map(lambda image: _measure_one(source_uri, image.path), part):
                vanished += result.error == _VANISHED
                yield result
            if vanished and not source_exists(source_uri):
                raise SourceUnreadable(
                    f"The source {source_uri} vanished while it was read, after at least {start} of "
                    f"{len(images)} images.",
                    next_step="Bring the source back and run again.",
                )


def _measure_one(source_uri: str, path: str) -> Measured:
    try:
        return measure(read_bytes(source_uri, path))
    except FileNotFoundError:
        return Measured(error=_VANISHED)
    except (ConnectionError, TimeoutError) as error:
        raise SourceUnreadable(f"The store behind {source_uri} stopped answering at {path}: {error}.") from error
    except OSError as error:
        return Measured(error=f"The file can't be read: {error.strerror or error}.")


def _splits(
    images: list[Listed], measured: list[Measured], config: SplitConfig, frozen: Mapping[str, str]
) -> list[str]:
    usable = [position for position, result in enumerate(measured) if result.error is None]
    contents = [Content(measured[at].sha256, images[at].label, images[at].split) for at in usable]
    splits = [""] * len(images)
    for at, part in zip(usable, assign_splits(contents, config, frozen), strict=True):
        splits[at] = part
    return splits


def _version(frame: "pd.DataFrame") -> str:
    """Over what was given and decided, not over what was measured: another Pillow release is not another data set."""
    rows = frame.sort_values(["path", "label"], kind="stable")
    digest = hashlib.sha256()
    for row in zip(*(rows[column] for column in _VERSIONED), strict=True):
        digest.update(json.dumps([str(value) for value in row], ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


def _parquet(frame: "pd.DataFrame") -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column, pa.int64() if column in _NUMBERS else pa.string()) for column in COLUMNS])
    table = pa.Table.from_pandas(frame[list(COLUMNS)], schema=schema, preserve_index=False)
    overlooked = json.dumps(frame.attrs.get("overlooked", []))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"overlooked": overlooked}), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _store(content: bytes, uri: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(uri)
    if filesystem.exists(path):
        return
    filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if is_local(uri):
        # A manifest is never written again: after a power cut it must not be there and empty.
        write_whole(Path(path), content)
        return
    # An object store shows an object whole or not at all; of two writers of one version, the first one's stays.
    with suppress(FileExistsError):
        filesystem.pipe_file(path, content, mode="create")
