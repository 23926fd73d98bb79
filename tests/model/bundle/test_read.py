import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from model.bundle.read import INDEX, BundleRef, digest_of, open_bundle
from model.data.decoding import decode
from model.errors import BundleCorrupt
from model.files import staged
from tests.support.bundles import COLOURS, make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(make_bundle(tmp_path / "bundle").path)


def edit_index(bundle: Path, **changes: object) -> None:
    """Change `bundle.json` as someone who knows the format would: with a digest that fits."""
    index = json.loads((bundle / INDEX).read_text())
    index.update(changes)
    index["digest"] = digest_of(index["files"])
    (bundle / INDEX).write_text(json.dumps(index))


def test_a_bundle_reads_back_as_it_was_sealed(tmp_path: Path) -> None:
    ref = make_bundle(tmp_path / "b", labels=("blue", "red"), name="two")
    bundle = open_bundle(tmp_path / "b", digest=ref.digest)
    assert (bundle.name, bundle.labels, bundle.model.name) == ("two", ("blue", "red"), "model.onnx")
    assert bundle.ref == ref == BundleRef.model_validate_json(ref.model_dump_json())
    assert bundle.signature.input.shape == ("batch", 32, 32, 3)
    assert [golden.path.name for golden in bundle.golden] == ["00.png", "01.png"]


def test_golden_images_are_answered_as_expected_by_the_served_model(bundle: Path) -> None:
    opened = open_bundle(bundle)
    session = onnxruntime.InferenceSession(str(opened.model), providers=["CPUExecutionProvider"])
    for index, golden in enumerate(opened.golden):
        pixels = decode(golden.read(), opened.preprocessing)
        answer = session.run(None, {"images": pixels[None]})[0][0]
        assert golden.matches(answer)
        assert int(answer.argmax()) == index
        assert not golden.matches(np.roll(answer, 1))
        assert not golden.matches(answer[:-1])


def test_the_digest_depends_on_the_bytes_only(tmp_path: Path) -> None:
    first, again = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "elsewhere" / "b")
    other = make_bundle(tmp_path / "c", bias=0.5)
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize("file", ["model.onnx", "labels.json", "golden/01.png", "metrics.json", "signature.json"])
def test_a_changed_byte_is_found_and_named(bundle: Path, file: str) -> None:
    data = bytearray((bundle / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / file).write_bytes(data)
    with pytest.raises(BundleCorrupt, match=file):
        open_bundle(bundle)


def test_a_missing_an_extra_and_a_linked_file_are_named(bundle: Path, tmp_path: Path) -> None:
    (bundle / "surprise.bin").write_bytes(b"x")
    with pytest.raises(BundleCorrupt, match=r"surprise\.bin"):
        open_bundle(bundle, verify=False)
    (bundle / "surprise.bin").unlink()
    (tmp_path / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleCorrupt, match=r"lacks model\.onnx"):
        open_bundle(bundle)
    (bundle / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(BundleCorrupt, match="symbolic link"):
        open_bundle(bundle)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "golden/../../x", "a\\..\\b", "golden//00.png", "."])
def test_a_path_out_of_the_bundle_is_refused(bundle: Path, path: str) -> None:
    (bundle.parent / "outside").write_bytes(b"secret")
    files = json.loads((bundle / INDEX).read_text())["files"]
    edit_index(bundle, files={**files, path: "0" * 64})
    with pytest.raises(BundleCorrupt, match="no path inside"):
        open_bundle(bundle)


def test_an_edited_index_is_refused(bundle: Path) -> None:
    index = json.loads((bundle / INDEX).read_text())
    index["files"]["model.onnx"] = "0" * 64
    (bundle / INDEX).write_text(json.dumps(index))
    with pytest.raises(BundleCorrupt, match="digest"):
        open_bundle(bundle)


def test_the_served_file_and_the_name_are_covered_by_the_digest(bundle: Path) -> None:
    edit_index(bundle, served="labels.json")
    with pytest.raises(BundleCorrupt, match=r"signature\.json"):
        open_bundle(bundle)
    edit_index(bundle, served="model.onnx", name="other")
    with pytest.raises(BundleCorrupt, match=r"signature\.json"):
        open_bundle(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "\x00\xff"])
def test_a_broken_index_is_a_corrupt_bundle(bundle: Path, text: str) -> None:
    (bundle / INDEX).write_text(text)
    with pytest.raises(BundleCorrupt, match=INDEX):
        open_bundle(bundle)


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match=r"has no bundle\.json"):
        open_bundle(tmp_path / "nowhere")


def test_another_digest_than_the_registry_names_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleCorrupt, match="was asked for"):
        open_bundle(bundle, digest="f" * 64)


def test_a_failed_build_leaves_the_former_bundle_whole(bundle: Path) -> None:
    before = open_bundle(bundle).digest

    def build_halfway() -> None:
        with staged(bundle) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build_halfway()
    assert open_bundle(bundle).digest == before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]
    make_bundle(bundle, bias=1.0)
    assert open_bundle(bundle).digest != before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


def killed_while_building(bundle: Path, before: str = "") -> None:
    """Another process gets SIGKILL with half a bundle written, or between the two renames."""
    code = (
        "import os, pathlib, signal, sys\n"
        "from model.files import staged\n"
        "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "rename = pathlib.Path.rename\n"
        "def renamed(path, target):\n"
        "    return kill() if str(path.name).startswith('.') else rename(path, target)\n"
        "with staged(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'model.onnx').write_bytes(b'half')\n"
        "    if not sys.argv[2]: kill()\n"
        "    pathlib.Path.rename = renamed\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle), before], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_build_left_is_gone_after_the_next_and_what_others_build_stays(bundle: Path) -> None:
    killed_while_building(bundle)
    killed_while_building(bundle.with_name("bundle.more"))
    assert len(list(bundle.parent.iterdir())) == 3
    with staged(bundle) as other:
        make_bundle(bundle)
        assert other.is_dir()
        make_bundle(bundle.with_name("bundle.more"))
        assert sorted(entry.name for entry in bundle.parent.iterdir()) == sorted([other.name, "bundle", "bundle.more"])
        (other / "model.onnx").write_bytes(b"last")
    assert (bundle / "model.onnx").read_bytes() == b"last"


def test_killed_between_the_two_renames_the_former_bundle_is_back_before_the_next_is_built(bundle: Path) -> None:
    before = open_bundle(bundle).digest
    killed_while_building(bundle, "the second rename")
    assert not bundle.exists()
    with staged(bundle):
        assert open_bundle(bundle).digest == before
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


def test_labels_of_any_script_survive(tmp_path: Path) -> None:
    labels = ("a/b", "crème brûlée", "🍎", *COLOURS)
    make_bundle(tmp_path / "b", labels=labels)
    assert open_bundle(tmp_path / "b").labels == labels


def test_reading_a_bundle_imports_nothing_heavy() -> None:
    heavy = "torch", "pandas", "onnx", "matplotlib", "scipy", "onnxruntime"
    code = f"import sys, model.bundle.read; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
