"""Images built on this machine by podman or docker."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable
from typing import Final

from infra.container_images import BuiltImage, ImageSource
from infra.errors import ConfigurationError, ImageBuildFailed

PROGRAMS: Final = ("podman", "docker")
LAST_LINES: Final = 20


class LocalBuilds:
    """An ImageBuilder with the first of podman and docker that is on the path.

    Raises:
        ConfigurationError: Neither is.
    """

    def __init__(self) -> None:
        program = next((name for name in PROGRAMS if shutil.which(name)), None)
        if program is None:
            raise ConfigurationError(
                f"Neither of {' and '.join(PROGRAMS)} is installed, which build images on this machine.",
                next_step="Install one, or let the platform's registry build: AHC_BACKEND=azure.",
            )
        self._program = program

    def build(self, source: ImageSource, tell: Callable[[str], None]) -> BuiltImage:
        names = [f"localhost/{source.name}:{tag}" for tag in source.tags]
        content = names[0]
        built = not self._succeeds("image", "inspect", content)
        if built:
            self._run_build(source, content, tell)
        for name in names[1:]:
            self._succeeds("tag", content, name)
        return BuiltImage(reference=content, tags=source.tags, built=built)

    def _run_build(self, source: ImageSource, name: str, tell: Callable[[str], None]) -> None:
        arguments = [word for key, value in source.arguments.items() for word in ("--build-arg", f"{key}={value}")]
        with tempfile.TemporaryDirectory(prefix="image-") as folder:
            with tarfile.open(fileobj=io.BytesIO(source.archive())) as archive:
                archive.extractall(folder, filter="data")
            command = [self._program, "build", *arguments, "--file", source.dockerfile, "--tag", name, "."]
            # HEALTHCHECK is of the docker format only, which docker writes anyway.
            environment = {**os.environ, "BUILDAH_FORMAT": "docker"}
            last: deque[str] = deque(maxlen=LAST_LINES)
            with subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    last.append(line.rstrip())
                    tell(last[-1])
        if process.returncode:
            lines = "\n".join(last)
            raise ImageBuildFailed(f"{self._program} could not build the image {source.name}. Its last lines:\n{lines}")

    def _succeeds(self, *arguments: str) -> bool:
        return subprocess.run([self._program, *arguments], capture_output=True, check=False).returncode == 0
