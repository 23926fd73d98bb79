"""Stand-ins for the long flows around a reconciliation: they take as long as a test wants, and release nothing."""

import time
from pathlib import Path

from infra.backend import backend
from infra.errors import SmokeTestFailed
from infra.settings import get_settings
from tasks.framework.events import model_registered
from tasks.framework.pipeline import pipeline
from tasks.release.one_release_lock import one_release_at_a_time
from tasks.release.targets import environment_file


@pipeline("release", "release {name} v{version} to {environment}")
def release(name: str, version: int, environment: str, by: str = "") -> None:
    """Holds its turn until the file `go` is there, and fails where `fail` is; writes down who began and who ended."""
    home = get_settings().home
    if (home / "fail").exists():
        raise SmokeTestFailed("It answers nonsense.")
    with one_release_at_a_time(environment_file(environment)):
        _note(home, f"begin v{version} by {by}")
        _wait_for(home / "go")
        _note(home, f"end v{version}")


@pipeline("lifecycle", "lifecycle {data[source]}")
def lifecycle(data: dict[str, str], version: int) -> None:
    """Registers nothing, but tells it; goes on until the file `go` is there."""
    model = backend(get_settings()).registry().get(data["source"], version)
    register(model.name, version)
    _wait_for(get_settings().home / "go")


@pipeline("training", "training")
def register(name: str, version: int) -> None:
    """Tells that a version was registered, as the registration does."""
    model_registered(backend(get_settings()).registry().get(name, version), "promote")


def _note(home: Path, line: str) -> None:
    with (home / "notes").open("a") as file:
        file.write(f"{line}\n")


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.1)
