"""The files of an environment's endpoint: its state over restarts, its bundles, and the locks on them."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError

from infra.errors import DiskFull, EndpointUnreachable, ModelNotFound
from infra.ports import LiveModel
from infra.waiting import polls
from model.files import try_lock, write_whole
from model.values import Frozen

SOCKET_PATH_LIMIT: Final = 100
"""Bytes of a Unix socket's path that every system allows (macOS: 103, Linux: 107)."""
LOCK_SECONDS: Final = 180.0


class Deployment(Frozen):
    """One model version as this endpoint keeps it."""

    model: LiveModel
    handle: str = Field(description="Names this deployment, over restarts of its process too.")
    correlation_id: str = Field(default="", description="Of the run that deployed it.")

    @property
    def label(self) -> str:
        return self.model.label


class EndpointState(Frozen):
    """The content of `state.json`."""

    live: Deployment | None = None
    previous: Deployment | None = None
    candidate: Deployment | None = None

    @property
    def handles(self) -> set[str]:
        return {item.handle for item in (self.live, self.previous, self.candidate) if item is not None}


class SupervisorConfig(Frozen):
    """What a supervisor gets on stdin."""

    environment: str
    host: str
    port: int
    directory: Path
    threads: int = 0
    spool: Path = Field(description="Folder for sampled scoring records.")
    sample_rate: float = 0
    sample_images: int = 0
    keys: tuple[SecretStr, ...]

    def to_json(self) -> str:
        """With the keys in the clear; for the pipe to the supervisor only."""
        content = self.model_dump(mode="json")
        return json.dumps({**content, "keys": [key.get_secret_value() for key in self.keys]})


class EndpointFiles:
    """The folder `endpoints/<environment>` of AHC_HOME."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state.json"
        self.log = directory / "scoring.log"
        self.bundles = directory / "bundles"
        self._lock = directory / "lock"
        self._supervisor_lock = directory / "supervisor.lock"
        self._control_path = directory / "control.path"

    def bundle(self, handle: str) -> Path:
        """The deployment's own copy of its bundle."""
        return self.bundles / handle

    def read_state(self) -> EndpointState:
        """Empty where there is none; one that can't be read is put aside, not overwritten."""
        try:
            return EndpointState.model_validate_json(self.state.read_bytes())
        except FileNotFoundError:
            return EndpointState()
        except ValidationError:
            self.state.replace(self.state.with_suffix(".unreadable"))
            return EndpointState()

    def write_state(self, state: EndpointState) -> None:
        """On disk, whole, before this returns."""
        write_whole(self.state, state.model_dump_json(indent=1))

    def control_socket(self, *, create: bool = False) -> Path | None:
        """Where the supervisor takes commands: in this folder, or in a short one where its path is too long."""
        short = self.directory / "control.sock"
        if len(os.fsencode(short)) <= SOCKET_PATH_LIMIT:
            return short
        if create:
            elsewhere = Path(tempfile.mkdtemp(prefix="ahc-")) / "control.sock"
            write_whole(self._control_path, os.fsencode(elsewhere))
            return elsewhere
        try:
            return Path(os.fsdecode(self._control_path.read_bytes()))
        except FileNotFoundError:
            return None

    def remove_control_socket(self) -> None:
        path = self.control_socket()
        if path is None:
            return
        path.unlink(missing_ok=True)
        if path.parent != self.directory:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
            self._control_path.unlink(missing_ok=True)

    def store_bundle(self, source: Path, handle: str) -> None:
        """Keep a copy of the bundle of its own for this deployment, so that the registry may forget it.

        Raises:
            ModelNotFound: There is no such folder.
            DiskFull: Nothing is left of the copy.
        """
        if not source.is_dir():
            raise ModelNotFound(f"There is no bundle at {source}.")
        try:
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                target = self.bundle(handle) / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        except OSError as error:
            shutil.rmtree(self.bundle(handle), ignore_errors=True)
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"No space is left for a copy of the bundle under {self.bundles}.") from error
            raise

    def remove_bundles(self, keep: set[str]) -> None:
        """Remove the copies of all deployments but these."""
        if not self.bundles.is_dir():
            return
        for folder in self.bundles.iterdir():
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change of this endpoint at a time, over all processes.

        Raises:
            EndpointUnreachable: Another change takes very long.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock.touch()
        for _ in polls(LOCK_SECONDS, pause=0.05):
            descriptor = try_lock(self._lock)
            if descriptor is not None:
                break
        else:
            raise EndpointUnreachable(
                f"Another process has been changing the endpoint in {self.directory} for {LOCK_SECONDS:g} s."
            )
        try:
            yield
        finally:
            os.close(descriptor)

    def claim_supervision(self) -> int | None:
        """The descriptor that marks this process as the supervisor as long as it is open; None where one is there."""
        self._supervisor_lock.touch(0o600)
        descriptor = try_lock(self._supervisor_lock)
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        return descriptor

    def supervisor_pid(self) -> int | None:
        """The supervisor that runs now; its lock, not its number, is what proves it."""
        try:
            descriptor = try_lock(self._supervisor_lock)
        except FileNotFoundError:
            return None
        if descriptor is not None:
            os.close(descriptor)
            return None
        text = self._supervisor_lock.read_text(encoding="utf-8")
        return int(text) if text.isdecimal() else None
