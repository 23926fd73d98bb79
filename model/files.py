"""Files and folders that are whole or not there, and locks that end with their process."""

import fcntl
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_FORMER: Final = ".former"


def write_whole(
    path: Path, content: bytes | str, *, mode: int = 0o666, replace: bool = True, sync: bool = True
) -> bool:
    """Write a file so that readers, and the machine after a power cut, see all of it or what was there before.

    Args:
        path: The file; folders above it are made, and closed to other users where `mode` is.
        content: Text is written as UTF-8.
        mode: Permissions of the file, less those that the umask takes away.
        sync: Whether it has to outlive a power cut. Without, it is whole for whoever looks, and waits for no disk.
        replace: Otherwise a file that is there already stays: of several writers, the first one's counts.

    Returns:
        Whether this content is at `path` now.

    Raises:
        OSError: For example when the disk is full; nothing of the draft is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if mode & 0o077 == 0 else 0o777)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
        if sync:
            _sync_folder(path.parent)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staged(directory: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder beside `directory` that takes its place when the block ends without an error.

    What was at `directory` before stays whole until then. What a killed process left beside it goes first.

    Args:
        directory: Folders above it are made.
        replace: Otherwise a folder that is there by the end stays: of several writers, the first one's counts.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _nobody_sweeps(directory.parent):
        _sweep(directory)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        lock = try_lock(staging)
    try:
        # Others may read what they could reach anyway; mkdtemp shuts them out.
        staging.chmod(directory.parent.stat().st_mode & 0o755)
        yield staging
        with _nobody_sweeps(directory.parent):
            if not directory.exists():
                staging.rename(directory)
            elif replace:
                former = staging.with_name(f"{staging.name}{_FORMER}")
                directory.rename(former)
                staging.rename(directory)
                shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def _nobody_sweeps(parent: Path) -> Iterator[None]:
    """While a staging folder has no lock yet, or what it replaces has no name."""
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(directory: Path) -> None:
    """Remove the staging folders of processes that are gone; what they had moved aside comes back."""
    random = "?" * 8  # as mkdtemp makes it, so that a sibling called `{directory.name}.more` isn't meant
    staging = f".{glob.escape(directory.name)}.{random}"
    for left in (*directory.parent.glob(staging), *directory.parent.glob(f"{staging}{_FORMER}")):
        with suppress(FileNotFoundError):
            lock = try_lock(left)
            if lock is None:
                continue
            if left.suffix == _FORMER and not directory.exists():
                left.rename(directory)
            else:
                shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock file at `path` and hold it; a killed holder leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Lock a file or folder that is there without waiting.

    Returns:
        The descriptor that holds the lock until it is closed or the process ends; None if another process has it.

    Raises:
        FileNotFoundError: There is nothing at `path`.
    """
    # A shared lock only looks: who may not write there may hold it too.
    descriptor = os.open(path, os.O_RDONLY if shared or not path.is_file() else os.O_RDWR)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        with suppress(OSError):
            os.close(descriptor)
        raise
    return descriptor
