"""What a source names before an image is read, and how a folder `root/<label>/<image>` is listed."""

import unicodedata
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from model.errors import SourceUnreadable

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")
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


def list_folder(filesystem: Any, root: str, uri: str) -> Listing:
    """The images of a folder, sorted by path; labels are its sub-folders.

    Raises:
        SourceUnreadable: It is missing, no folder, or has no images in label folders.
    """
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
        Listed(name, clean_label(name.split("/")[0]), stamp=stamp_of(info))
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
        others = len(entries) - loose
        return f"The folder {uri} has no label folders; {loose} image(s) and {others} other file(s) lie in it."
    return (
        f"No image ({suffixes}) lies in the {len({name.split('/')[0] for name in folders})} label folder(s) of {uri}."
    )


def clean_label(value: str) -> str:
    """Without surrounding blanks, and in one Unicode form: file systems differ in theirs."""
    return unicodedata.normalize("NFC", value.strip())


def is_absolute(path: str) -> bool:
    return path.startswith("/") or "://" in path


def stamp_of(info: dict[str, Any]) -> str:
    """Size and age of a file, in whichever words its store has for the latter."""
    age = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    return f"{info.get('size')}:{age}"


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first of them, and how many more there are."""
    items = list(names)
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest
