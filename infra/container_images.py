"""What the platform's container images are built of: a Dockerfile and what it copies, known by a hash over it all."""

import hashlib
import io
import shlex
import tarfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.settings import PROJECT
from infra.version import repository, revision, version
from model.values import Frozen

DOCKERFILES: Final = PROJECT / "infra" / "docker"
STABLE: Final = "stable"
"""The tag of what was built last, which environments use unless their file names another."""


class BuiltImage(Frozen):
    """An image that can be run."""

    reference: str
    """Name and digest, or the tag of the content where a local builder knows no digest of a registry."""
    tags: tuple[str, ...]
    built: bool
    """False where the same sources were built before."""


class ImageBuilder(Protocol):
    """Builds images where they are kept: in the platform's registry, or on this machine."""

    def build(self, source: "ImageSource", tell: Callable[[str], None]) -> BuiltImage:
        """The image of these sources; built only where it was not the last that was built. `tell` gets log lines.

        Raises:
            ImageBuildFailed: With the last lines of the build's log.
        """
        ...


class ImageSource:
    """The sources of one image.

    Args:
        name: Of `infra/docker/NAME.Dockerfile`.
        base: The image to build on; the Dockerfile's own where it is empty.

    Raises:
        ConfigurationError: There is no such image.
    """

    def __init__(self, name: str, *, base: str = "") -> None:
        names = [path.stem for path in sorted(DOCKERFILES.glob("*.Dockerfile"))]
        if name not in names:
            raise ConfigurationError(f"There is no image `{name}`: {nearest(name, names)}")
        self.name = name
        self.dockerfile = f"infra/docker/{name}.Dockerfile"
        self.arguments = {"VERSION": version(), "REVISION": revision()}
        optional = {"SOURCE": repository(), "BASE_IMAGE": base}
        self.arguments |= {name: value for name, value in optional.items() if value}

    @cached_property
    def digest(self) -> str:
        """24 hex digits over the Dockerfile, what it copies and the base; not over version and revision."""
        digest = hashlib.sha256(self.arguments.get("BASE_IMAGE", "").encode())
        for path in self.files():
            digest.update(f"{path.relative_to(PROJECT)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:24]

    @property
    def content_tag(self) -> str:
        return f"src-{self.digest}"

    @property
    def tags(self) -> tuple[str, ...]:
        # A tag of an image holds no plus sign.
        return (self.content_tag, self.arguments["VERSION"].replace("+", "-"), self.arguments["REVISION"], STABLE)

    def files(self) -> list[Path]:
        """The Dockerfile and every file that it copies, sorted."""
        dockerfile = PROJECT / self.dockerfile
        return sorted({dockerfile, *(path for source in _copied(dockerfile) for path in _below(PROJECT / source))})

    def archive(self) -> bytes:
        """All files as a .tar.gz."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in self.files():
                archive.add(path, arcname=str(path.relative_to(PROJECT)), filter=_without_owner)
        return buffer.getvalue()


def _copied(dockerfile: Path) -> Iterator[str]:
    for line in dockerfile.read_text(encoding="utf-8").splitlines():
        words = shlex.split(line) if line.startswith("COPY ") else []
        if words and not any(word.startswith("--from") for word in words):
            yield from (word for word in words[1:-1] if not word.startswith("--"))


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for item in path.rglob("*"):
        if item.is_file() and "__pycache__" not in item.parts:
            yield item


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
