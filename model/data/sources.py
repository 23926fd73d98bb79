"""Where images come from: a folder `root/<label>/<image>`, a CSV or Parquet manifest, or a URL of one of these."""

import hashlib
import posixpath
from functools import lru_cache
from typing import Any, Final

import fsspec

from model.data.folder_listing import Listed, Listing, is_absolute, list_folder, some, stamp_of
from model.data.table_listing import list_table
from model.errors import SourceUnreadable

MANIFEST_SUFFIXES: Final = (".csv", ".parquet")


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


def filesystem_of(source_uri: str) -> Any:
    """The fsspec file system that opens this source."""
    return _filesystem(source_uri)[0]


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
            listing = list_table(filesystem, path, source_uri)
        else:
            listing = list_folder(filesystem, path, source_uri)
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


def _locate(source_uri: str, path: str) -> tuple[Any, str]:
    if is_absolute(path):
        return _open(path)
    filesystem, root = _filesystem(source_uri)
    if root.lower().endswith(MANIFEST_SUFFIXES):
        root = posixpath.dirname(root)
    return filesystem, posixpath.normpath(f"{root}/{path}") if root else path


def _refuse_names_that_are_no_text(images: list[Listed], uri: str) -> None:
    broken = [repr(image.path) for image in images if not _is_text(image.path) or not _is_text(image.label)]
    if broken:
        raise SourceUnreadable(f"The source {uri} has {len(broken)} name(s) that are not UTF-8: {some(broken)}.")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        infos.update({str(info["name"]): stamp_of(info) for info in found})
    return [image._replace(stamp=infos.get(_locate(source_uri, image.path)[1], "")) for image in images]
