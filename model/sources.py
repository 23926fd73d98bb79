"""Where images come from: a folder `root/<label>/<image>`, a CSV or Parquet manifest, or an fsspec URL of these."""

import difflib
import hashlib
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import fsspec
import pandas as pd

from model.errors import SourceUnreadable
from model.splits import SPLITS

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")
MANIFEST_SUFFIXES: Final = (".csv", ".parquet")
_LITTER: Final = ("thumbs.db", "desktop.ini", "__macosx")
_STAMPS: Final = ("mtime", "ETag", "etag", "LastModified", "last_modified", "md5Hash", "updated", "created")


class Listed(NamedTuple):
    """One image that a source names. `split` is empty where the source doesn't say; `stamp` is its size and age."""

    path: str
    label: str
    split: str = ""
    stamp: str = ""


class Listing(NamedTuple):
    """What a source holds: its images, and what lies there that is none."""

    images: list[Listed]
    overlooked: list[str]


def canonical_uri(source_uri: str) -> str:
    """The same source however it was written: an absolute path for this machine's files, else the URL.

    Raises:
        SourceUnreadable: No file system is known for the URL's protocol.
    """
    filesystem, path = _open(source_uri)
    return path if _is_local(filesystem) else source_uri.rstrip("/")


def is_local(source_uri: str) -> bool:
    """Whether the source lies on this machine's disks."""
    return _is_local(_filesystem(source_uri)[0])


def source_exists(source_uri: str) -> bool:
    """Whether the source's folder or manifest file is there."""
    filesystem, path = _filesystem(source_uri)
    return bool(filesystem.exists(path))


def read_bytes(source_uri: str, path: str) -> bytes:
    """The bytes of one image of a source; `path` is relative to the source's folder, absolute, or a URL.

    Raises:
        OSError: As the file system reports it; FileNotFoundError where the image has gone.
    """
    filesystem, name = _locate(source_uri, path)
    return bytes(filesystem.cat_file(name))


def list_source(source_uri: str) -> Listing:
    """Name every image of a source, sorted by path, without reading one.

    Raises:
        SourceUnreadable: It is missing, empty or of no form that is understood; the message says which and names
            the rows, columns or words at fault.
    """
    # Canonical before it is a key of the cache: a relative path depends on the working directory.
    source_uri = canonical_uri(source_uri)
    filesystem, path = _filesystem(source_uri)
    try:
        if path.lower().endswith(MANIFEST_SUFFIXES):
            listing = _list_manifest(filesystem, path, source_uri)
        else:
            listing = _list_folder(filesystem, path, source_uri)
    except OSError as error:
        raise SourceUnreadable(f"The source {source_uri} can't be read: {error}.") from error
    _refuse_names_that_are_no_text(listing.images, source_uri)
    return listing


def source_fingerprint(source_uri: str) -> str:
    """A cheap key of a source's present content: 64 hex digits over paths, labels, sizes and times (or ETags).

    No image is read. A changed file changes the key; so does one that was only touched.

    Raises:
        SourceUnreadable: See `list_source`.
    """
    source_uri = canonical_uri(source_uri)
    images = list_source(source_uri).images
    digest = hashlib.sha256()
    if not any(image.stamp for image in images):
        images = _stamped(source_uri, images)
    for image in images:
        digest.update("\0".join((*image, "\n")).encode())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _filesystem(source_uri: str) -> tuple[Any, str]:
    return _open(source_uri)


def _open(uri: str) -> tuple[Any, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise SourceUnreadable(f"The address {uri} can't be opened: {error}.") from error
    return filesystem, str(path).rstrip("/")


def _is_local(filesystem: Any) -> bool:
    protocols = filesystem.protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or "://" in path


def _locate(source_uri: str, path: str) -> tuple[Any, str]:
    if _is_absolute(path):
        return _open(path)
    filesystem, root = _filesystem(source_uri)
    if root.lower().endswith(MANIFEST_SUFFIXES):
        root = posixpath.dirname(root)
    return filesystem, posixpath.normpath(f"{root}/{path}") if root else path


def _clean_label(value: str) -> str:
    return unicodedata.normalize("NFC", value.strip())


def _stamp(info: dict[str, Any]) -> str:
    age = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    return f"{info.get('size')}:{age}"


# --- a folder -----------------------------------------------------------------------------------------------------


def _list_folder(filesystem: Any, root: str, uri: str) -> Listing:
    if not filesystem.exists(root):
        raise SourceUnreadable(f"The source {uri} does not exist.")
    if filesystem.isfile(root):
        raise SourceUnreadable(f"The source {uri} is a file, but neither .csv nor .parquet.")
    entries = {
        name[len(root) :].strip("/"): info
        for name, info in filesystem.find(root, maxdepth=2, withdirs=True, detail=True).items()
    }
    visible = {name: info for name, info in entries.items() if name and not _is_litter(name)}
    images = [
        Listed(name, _clean_label(name.split("/")[0]), stamp=_stamp(info))
        for name, info in sorted(visible.items())
        if _is_image(name, info)
    ]
    if not images:
        raise SourceUnreadable(_why_no_images(visible, uri))
    return Listing(images, _overlooked(visible))


def _is_litter(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in _LITTER for part in name.split("/"))


def _is_folder(info: dict[str, Any]) -> bool:
    return info.get("type") == "directory"


def _is_image(name: str, info: dict[str, Any]) -> bool:
    return not _is_folder(info) and name.count("/") == 1 and name.lower().endswith(IMAGE_SUFFIXES)


def _overlooked(entries: dict[str, Any]) -> list[str]:
    """Files that are no images or lie too deep, and label folders without an image (these end with a slash)."""
    with_images = {name.split("/")[0] for name, info in entries.items() if _is_image(name, info)}
    return sorted(
        f"{name}/" if _is_folder(info) else name
        for name, info in entries.items()
        if not _is_image(name, info) and name not in with_images
    )


def _why_no_images(entries: dict[str, Any], uri: str) -> str:
    suffixes = ", ".join(IMAGE_SUFFIXES)
    if not entries:
        return f"The folder {uri} is empty."
    folders = [name for name, info in entries.items() if _is_folder(info) or "/" in name]
    if not folders:
        loose = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in entries)
        other = len(entries) - loose
        return f"The folder {uri} has no label folders; {loose} image(s) and {other} other file(s) lie in it."
    return (
        f"No image ({suffixes}) lies in the {len({name.split('/')[0] for name in folders})} label folder(s) of {uri}."
    )


# --- a manifest ---------------------------------------------------------------------------------------------------


def _list_manifest(filesystem: Any, path: str, uri: str) -> Listing:
    if not filesystem.exists(path):
        raise SourceUnreadable(f"The manifest {uri} does not exist.")
    if filesystem.isdir(path):
        raise SourceUnreadable(f"{uri} is a folder, but is named like a manifest file; rename it.")
    table = _read_table(filesystem, path, uri)
    for column in ("path", "label"):
        _require_column(column, list(table.columns), uri)
    if table.empty:
        raise SourceUnreadable(f"The manifest {uri} has no rows.")
    paths = [_clean_path(value) for value in table["path"]]
    labels = [_clean_label(value) for value in table["label"]]
    splits = [value.strip().lower() for value in table["split"]] if "split" in table else [""] * len(table)
    _refuse_empty_paths(paths, uri)
    _refuse_unknown_splits(splits, uri)
    _refuse_repeated_rows(paths, labels, uri)
    return Listing(sorted(map(Listed, paths, labels, splits)), [])


def _read_table(filesystem: Any, path: str, uri: str) -> "pd.DataFrame":
    try:
        with filesystem.open(path, "rb") as file:
            if path.lower().endswith(".csv"):
                table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
            else:
                table = pd.read_parquet(file)
    # pandas' parser errors and pyarrow's are ValueErrors.
    except ValueError as error:
        raise SourceUnreadable(f"The manifest {uri} can't be read: {error}.") from error
    table.columns = pd.Index([str(column).strip().lower() for column in table.columns])
    wanted = [column for column in ("path", "label", "split") if column in table]
    return table.assign(**{column: table[column].astype("object").fillna("").map(str) for column in wanted})


def _require_column(wanted: str, present: list[str], uri: str) -> None:
    if wanted in present:
        return
    close = difflib.get_close_matches(wanted, present, n=1, cutoff=0.0)
    hint = f"; the nearest one present is `{close[0]}`" if close else ""
    raise SourceUnreadable(f"The manifest {uri} has no column `{wanted}`{hint}. Its columns: {', '.join(present)}.")


def _clean_path(value: str) -> str:
    value = value.strip()
    return value if not value or _is_absolute(value) else posixpath.normpath(value)


def _refuse_empty_paths(paths: list[str], uri: str) -> None:
    rows = [str(number) for number, path in enumerate(paths, start=1) if not path]
    if rows:
        raise SourceUnreadable(f"The manifest {uri} has {len(rows)} row(s) without a path: row {_some(rows)}.")


def _refuse_unknown_splits(splits: list[str], uri: str) -> None:
    for number, word in enumerate(splits, start=1):
        if word and word not in SPLITS:
            close = difflib.get_close_matches(word, SPLITS, n=1, cutoff=0.3)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise SourceUnreadable(
                f"The manifest {uri} has the split `{word}` in row {number}; "
                f"valid: {', '.join(SPLITS)}, or empty to let it be chosen.{hint}"
            )


def _refuse_repeated_rows(paths: list[str], labels: list[str], uri: str) -> None:
    if len(set(paths)) == len(paths):
        return
    labels_of = defaultdict(list)
    for path, label in zip(paths, labels, strict=True):
        labels_of[path].append(label)
    repeated = {path: found for path, found in labels_of.items() if len(found) > 1}
    named = [
        f"{path} ({len(found)} times"
        + (f", with the labels {', '.join(sorted(set(found)))})" if len(set(found)) > 1 else ")")
        # Contradictions first: they are the worse half.
        for path, found in sorted(repeated.items(), key=lambda item: (len(set(item[1])) == 1, item[0]))
    ]
    raise SourceUnreadable(f"The manifest {uri} lists {len(repeated)} image(s) more than once: {_some(named)}.")


def _refuse_names_that_are_no_text(images: list[Listed], uri: str) -> None:
    broken = [repr(image.path) for image in images if not _is_text(image.path) or not _is_text(image.label)]
    if broken:
        raise SourceUnreadable(f"The source {uri} has {len(broken)} name(s) that are not UTF-8: {_some(broken)}.")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _some(names: Iterable[str], limit: int = 5) -> str:
    items = list(names)
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest


def _stamped(source_uri: str, images: list[Listed]) -> list[Listed]:
    """Sizes and ages of a manifest's images, by listing each folder once: one request, not one for each image."""
    infos: dict[str, str] = {}
    folders = {}
    for image in images:
        filesystem, name = _locate(source_uri, image.path)
        folders[posixpath.dirname(name)] = filesystem
    for folder, filesystem in folders.items():
        try:
            found = filesystem.ls(folder, detail=True)
        # Not every web server lists folders; the path alone is the key then.
        except (OSError, NotImplementedError):
            continue
        infos.update({str(info["name"]): _stamp(info) for info in found})
    return [image._replace(stamp=infos.get(_locate(source_uri, image.path)[1], "")) for image in images]
