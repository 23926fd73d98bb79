import io
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from PIL import Image

from model.data.image_facts import measure, perceptual_hash
from model.data.manifest import (
    COLUMNS,
    DataVersion,
    SplitConfig,
    build_manifest,
    frozen_splits,
    read_manifest,
    source_fingerprint,
    write_manifest,
)
from model.data.sources import read_bytes
from model.errors import DataRejected, InvalidConfig, SourceUnreadable
from model.validation.checks import validate
from model.validation.report import ValidationConfig
from tests.support.pictures import bomb, picture, write_tree

SPLIT = SplitConfig()


def build(source: object, **options: object) -> pd.DataFrame:
    return build_manifest(str(source), split=options.pop("split", SPLIT), **options)


def jpeg(seed: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", **options)
    return buffer.getvalue()


# --- measuring ----------------------------------------------------------------------------------------------------


def test_every_image_of_a_folder_is_measured(tmp_path):
    write_tree(tmp_path, {"cat": 3, "dog": 4})
    (tmp_path / "dog" / "SHOUTED.JPEG").write_bytes(jpeg(100))
    picture(101, mode="RGBA").save(tmp_path / "cat" / "alpha.PNG")
    picture(102).save(tmp_path / "cat" / "modern.webp")
    frame = build(tmp_path)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 10
    assert frame["error"].isna().all()
    assert list(frame["path"]) == sorted(frame["path"])
    alpha = frame.set_index("path").loc["cat/alpha.PNG"]
    assert (alpha.label, alpha.width, alpha.height, alpha.format, alpha["mode"]) == ("cat", 96, 64, "PNG", "RGBA")
    assert alpha.bytes == (tmp_path / "cat" / "alpha.PNG").stat().st_size
    assert frame["sha256"].str.len().eq(64).all()
    assert frame["phash"].str.len().eq(16).all()


def test_progress_counts_up_to_all_images(tmp_path):
    write_tree(tmp_path, {"cat": 3, "dog": 4})
    seen: list[tuple[int, int]] = []
    build(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 7) for number in range(1, 8)]


def test_bad_images_are_rows_with_an_error_and_no_split(tmp_path):
    write_tree(tmp_path, {"cat": 4, "dog": 4})
    bad = {
        "cat/bomb.png": bomb(),
        "cat/empty.jpg": b"",
        "cat/text.jpg": b"I am a text file.",
        "dog/truncated.jpg": jpeg(50, quality=95)[:1500],
        "dog/gif.jpg": (gif := io.BytesIO(), picture(51).save(gif, "GIF"))[0].getvalue(),
    }
    for path, content in bad.items():
        (tmp_path / path).write_bytes(content)
    frame = build(tmp_path).set_index("path")
    errors = frame.loc[sorted(bad), "error"]
    assert "20000 x 20000 pixels" in errors["cat/bomb.png"]
    assert "0 bytes" in errors["cat/empty.jpg"]
    assert "not an image" in errors["cat/text.jpg"]
    assert "damaged or incomplete" in errors["dog/truncated.jpg"]
    assert "GIF" in errors["dog/gif.jpg"]
    assert (frame.loc[sorted(bad), "split"] == "").all()
    assert (frame.drop(index=sorted(bad))["split"] != "").all()


def test_the_perceptual_hash_survives_scaling_and_reencoding_but_tells_images_apart():
    def bits(a: int, b: int) -> int:
        return (a ^ b).bit_count()

    def photo(seed: int) -> Image.Image:
        return picture(seed, 320, 200, cells=24)

    original = perceptual_hash(photo(1))
    small = photo(1).resize((240, 150))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    assert bits(original, int(measure(buffer.getvalue()).phash, 16)) <= 4
    assert min(bits(original, perceptual_hash(photo(seed))) for seed in range(2, 30)) > 8
    assert perceptual_hash(Image.new("RGB", (50, 50), "red")) == 0


def test_other_files_are_ignored_and_named(tmp_path):
    write_tree(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / "cat" / "Thumbs.db").write_text("x")
    (tmp_path / "cat" / "notes.md").write_text("x")
    (tmp_path / "cow").mkdir()
    frame = build(tmp_path)
    assert set(frame["label"]) == {"cat", "dog"}
    assert frame.attrs["overlooked"] == ["cat/notes.md", "cow/", "readme.txt"]


@pytest.mark.parametrize("label", ["🥕 carrot", "żółć", "百合", "a b&<c>"])
def test_labels_in_any_script_work_all_the_way(tmp_path, label):
    write_tree(tmp_path / "source", {label: 4, "dog": 4})
    frame = build(tmp_path / "source")
    data = write_manifest(frame, root=str(tmp_path / "store"), name="odd", source_uri=str(tmp_path / "source"))
    again = read_manifest(data.manifest_uri)
    assert label in data.labels
    path = again.loc[again["label"] == label, "path"].iloc[0]
    assert read_bytes(data.source_uri, path) == (tmp_path / "source" / path).read_bytes()


def test_one_label_in_two_unicode_forms_is_one_label(tmp_path):
    write_tree(tmp_path, {unicodedata.normalize("NFD", "crème"): 2, unicodedata.normalize("NFC", "crème"): 2})
    frame = build(tmp_path)
    assert set(frame["label"]) == {unicodedata.normalize("NFC", "crème")}
    assert frame["error"].isna().all()


# --- sources ------------------------------------------------------------------------------------------------------


def test_a_source_may_be_any_fsspec_url(tmp_path):
    write_tree(tmp_path, {"cat": 3, "dog": 3})
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/remote/photos/", recursive=True)
    try:
        remote, local = build("memory://remote/photos/"), build(tmp_path)
        pd.testing.assert_frame_equal(remote, local)
        assert len(source_fingerprint("memory://remote/photos")) == 64
        data = write_manifest(remote, root="memory://remote/store", name="m", source_uri="memory://remote/photos/")
        pd.testing.assert_frame_equal(read_manifest(data.manifest_uri), remote)
        assert read_bytes(data.source_uri, "cat/000.jpg") == (tmp_path / "cat" / "000.jpg").read_bytes()
    finally:
        memory.rm("/remote", recursive=True)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_file_names_images_beside_it_and_elsewhere(tmp_path, suffix):
    write_tree(tmp_path / "here", {"x": 3})
    write_tree(tmp_path / "there", {"y": 3})
    table = pd.DataFrame(
        {
            "Path": [f"x/{n:03}.jpg" for n in range(3)] + [f"{tmp_path}/there/y/{n:03}.jpg" for n in range(3)],
            "label": ["NA", "NA", "NA", "null", "null", "null"],
            "split": ["test", "", "", "Train ", "validation", ""],
        }
    )
    manifest = tmp_path / "here" / f"list.{suffix}"
    table.to_csv(manifest, index=False) if suffix == "csv" else table.to_parquet(manifest)
    frame = build(manifest).set_index("path")
    assert frame["error"].isna().all()
    assert set(frame["label"]) == {"NA", "null"}
    assert frame.loc["x/000.jpg", "split"] == "test"
    assert list(frame.loc[[f"{tmp_path}/there/y/00{n}.jpg" for n in (0, 1)], "split"]) == ["train", "validation"]
    assert (frame["split"] != "").all()


def csv(folder: Path, text: str) -> str:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return str(folder / "list.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file_path,label\na.jpg,cat\n", ["no column `path`", "`file_path`"]),
        ("path,lable\na.jpg,cat\n", ["no column `label`", "`lable`"]),
        ("path,label\n", ["no rows"]),
        ("", ["can't be read"]),
        ("path,label\na.jpg,cat\n ,cat\n", ["without a path", "row 2"]),
        ("path,label,split\na.jpg,cat,training\n", ["`training` in row 1", "Did you mean `train`?"]),
        ("path,label\na.jpg,cat\nb.jpg,cat\n./a.jpg,cat\n", ["1 image(s) more than once", "a.jpg (2 times)"]),
        ("path,label\na.jpg,cat\na.jpg,dog\n", ["a.jpg (2 times, with the labels cat, dog)"]),
        ('path,label\n"a.jpg,cat\n', ["can't be read"]),
    ],
)
def test_a_wrong_csv_is_refused_with_the_reason(tmp_path, text, expected):
    source = csv(tmp_path, text)
    with pytest.raises(SourceUnreadable) as caught:
        build(source)
    for part in [*expected, source]:
        assert part in str(caught.value)


def test_a_source_that_holds_nothing_usable_is_refused_with_the_reason(tmp_path):
    def why(source: object) -> str:
        with pytest.raises(SourceUnreadable) as caught:
            build(source)
        return str(caught.value)

    assert "does not exist" in why(tmp_path / "missing")
    assert "does not exist" in why(tmp_path / "missing.csv")
    assert "is empty" in why(tmp_path)
    (tmp_path / "loose.jpg").write_bytes(jpeg(1))
    assert "no label folders; 1 image(s)" in why(tmp_path)
    assert "neither .csv nor .parquet" in why(tmp_path / "loose.jpg")
    (tmp_path / "cat").mkdir()
    assert "No image" in why(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    assert "can't be read" in why(tmp_path / "broken.parquet")
    (tmp_path / "data.csv").mkdir()
    assert "is a folder" in why(tmp_path / "data.csv")
    assert "can't be opened" in why("nonsense://x")


def test_an_image_that_vanishes_is_one_bad_row(tmp_path):
    write_tree(tmp_path, {"cat": 30, "dog": 30})

    def remove_last(done: int, total: int) -> None:
        (tmp_path / "dog" / "029.jpg").unlink(missing_ok=True)

    frame = build(tmp_path, workers=1, progress=remove_last)
    missing = csv(tmp_path, "path,label\ncat/000.jpg,cat\ngone.jpg,cat\n")
    assert build(missing).set_index("path").loc["gone.jpg", "error"].startswith("The file vanished")
    assert frame["error"].notna().sum() <= 1


def test_a_source_that_vanishes_half_way_is_said_so(tmp_path):
    source = write_tree(tmp_path / "source", {"cat": 200, "dog": 200})

    def pull_the_plug(done: int, total: int) -> None:
        if done == 1:
            shutil.rmtree(source)

    with pytest.raises(SourceUnreadable, match="vanished while it was read"):
        build(source, workers=1, progress=pull_the_plug)


def test_the_fingerprint_changes_with_the_source_only(tmp_path):
    source = write_tree(tmp_path, {"cat": 3, "dog": 3})
    listed = csv(tmp_path, "path,label\ncat/000.jpg,cat\ndog/000.jpg,dog\n")
    before = source_fingerprint(str(source)), source_fingerprint(listed)
    assert before == (source_fingerprint(str(source)), source_fingerprint(listed))
    (source / "cat" / "000.jpg").write_bytes(jpeg(99))
    assert source_fingerprint(str(source)) != before[0]
    assert source_fingerprint(listed) != before[1]


# --- splits -------------------------------------------------------------------------------------------------------


def test_every_class_is_split_by_the_shares(tmp_path):
    write_tree(tmp_path, {"cat": 40, "dog": 20, "eel": 3, "fox": 2})
    frame = build(tmp_path)
    counts = frame.groupby(["label", "split"]).size().unstack(fill_value=0)
    assert counts.loc["cat"].to_dict() == {"train": 28, "validation": 6, "test": 6}
    assert counts.loc["dog"].to_dict() == {"train": 14, "validation": 3, "test": 3}
    assert counts.loc["eel"].to_dict() == {"train": 1, "validation": 1, "test": 1}
    assert counts.loc["fox"].to_dict() == {"train": 2, "validation": 0, "test": 0}
    assert list(build(tmp_path)["split"]) == list(frame["split"])
    assert list(build(tmp_path, split=SplitConfig(seed=1))["split"]) != list(frame["split"])


def test_splits_follow_the_content_not_the_name(tmp_path):
    write_tree(tmp_path / "one", {"cat": 20, "dog": 20})
    for path in (tmp_path / "one").glob("*/*.jpg"):
        target = tmp_path / "two" / path.parent.name / f"renamed-{99 - int(path.stem)}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert frozen_splits(build(tmp_path / "one")) == frozen_splits(build(tmp_path / "two"))


def test_exact_copies_share_their_split(tmp_path):
    write_tree(tmp_path, {"cat": 20, "dog": 20})
    for number in range(20):
        shutil.copy(tmp_path / "cat" / f"{number:03}.jpg", tmp_path / "cat" / f"copy-{number}.jpg")
        shutil.copy(tmp_path / "cat" / f"{number:03}.jpg", tmp_path / "dog" / f"cat-{number}.jpg")
    frame = build(tmp_path)
    assert len(frame) == 80
    assert frame.groupby("sha256")["split"].nunique().max() == 1


def test_no_image_moves_when_the_data_set_grows(tmp_path):
    write_tree(tmp_path, {"cat": 20, "dog": 10})
    known = frozen_splits(build(tmp_path))
    write_tree(tmp_path, {"cat": 60, "dog": 40, "new": 10})
    grown = build(tmp_path, frozen=known)
    after = frozen_splits(grown)
    kept = {sha: split for sha, split in after.items() if sha in known}
    assert len(kept) >= 20
    assert all(known[sha] == split for sha, split in kept.items())
    counts = grown.groupby(["label", "split"]).size().unstack(fill_value=0)
    assert counts.loc["cat"].to_dict() == {"train": 42, "validation": 9, "test": 9}
    assert (counts > 0).all(axis=None)


def test_what_the_source_says_goes_before_what_was_frozen(tmp_path):
    write_tree(tmp_path, {"x": 4})
    rows = "".join(f"x/{n:03}.jpg,cat,{'validation' if n == 0 else ''}\n" for n in range(4))
    source = csv(tmp_path, "path,label,split\n" + rows)
    frozen = dict.fromkeys(build(source)["sha256"], "test")
    frame = build(source, frozen=frozen).set_index("path")
    assert list(frame["split"]) == ["validation", "test", "test", "test"]


def test_impossible_shares_are_refused():
    with pytest.raises(ValueError, match="leave nothing to train on"):
        SplitConfig(test=0.6, validation=0.4)


# --- storing ------------------------------------------------------------------------------------------------------


def test_a_manifest_is_stored_once_and_read_back_whole(tmp_path):
    source = write_tree(tmp_path / "source", {"cat": 6, "dog": 6})
    (source / "cat" / "bad.jpg").write_text("no")
    (source / "readme.txt").write_text("x")
    frame = build(source)
    data = write_manifest(frame, root=str(tmp_path / "store"), name="pets", source_uri=str(source))
    path = Path(data.manifest_uri)
    assert path == tmp_path / "store" / "pets" / data.version / "manifest.parquet"
    assert data.images == 12
    assert data.counts == {label: {"train": 4, "validation": 1, "test": 1} for label in ("cat", "dog")}
    assert DataVersion.model_validate_json(data.model_dump_json()) == data
    again = read_manifest(data.manifest_uri)
    pd.testing.assert_frame_equal(again, frame)
    assert again.attrs == {"overlooked": ["readme.txt"]}
    assert again.loc[again["path"] == "cat/bad.jpg", "error"].item()
    assert again["error"].iloc[0] is None
    before = path.stat().st_mtime_ns
    assert (
        write_manifest(frame.sample(frac=1), root=str(tmp_path / "store"), name="pets", source_uri=str(source)) == data
    )
    assert path.stat().st_mtime_ns == before
    assert [item.name for item in path.parent.iterdir()] == ["manifest.parquet"]


def test_the_version_depends_on_content_labels_and_splits(tmp_path):
    frame = build(write_tree(tmp_path / "source", {"cat": 6, "dog": 6}))

    def version(changed: pd.DataFrame) -> str:
        return write_manifest(changed, root=str(tmp_path / "store"), name="pets", source_uri="/x").version

    versions = [version(frame)]
    for column, value in (("label", "dog"), ("split", "test"), ("sha256", "0" * 64), ("path", "a/b.jpg")):
        changed = frame.copy()
        changed.loc[frame.index[frame["split"] == "train"][0], column] = value
        versions.append(version(changed))
    versions.append(version(frame.iloc[1:]))
    assert len(set(versions)) == len(versions)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    frame = build(write_tree(tmp_path / "source", {"cat": 3, "dog": 3}))
    whole = write_manifest(frame, root=str(tmp_path / "whole"), name="pets", source_uri="/x")
    # A folder in the way of the final name: the rename fails after everything was written.
    target = tmp_path / "store" / "pets" / whole.version
    target.parent.mkdir(parents=True)
    target.write_text("in the way")
    with pytest.raises(OSError):
        write_manifest(frame, root=str(tmp_path / "store"), name="pets", source_uri="/x")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == [target]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    frame = build(write_tree(tmp_path / "source", {"cat": 3, "dog": 3}))
    with pytest.raises(InvalidConfig, match="can't name a data set"):
        write_manifest(frame, root=str(tmp_path), name=name, source_uri="/x")


def test_a_damaged_or_foreign_manifest_is_refused(tmp_path):
    with pytest.raises(SourceUnreadable, match="can't be read"):
        read_manifest(str(tmp_path / "missing.parquet"))
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    with pytest.raises(SourceUnreadable, match="can't be read"):
        read_manifest(str(tmp_path / "damaged.parquet"))
    pd.DataFrame({"path": ["x"]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(SourceUnreadable, match="no column label"):
        read_manifest(str(tmp_path / "foreign.parquet"))


def test_the_plain_values_come_without_the_heavy_libraries():
    program = (
        "import sys, model.data.manifest, model.validation.report;"
        "print(sorted({'pandas', 'pyarrow', 'great_expectations', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_label_with_a_slash_from_a_csv_is_a_finding_and_not_a_crash(tmp_path):
    write_tree(tmp_path, {"x": 24})
    rows = "".join(f"x/{n:03}.jpg,{'meat/fish' if n % 2 else 'fruit'}\n" for n in range(24))
    report = validate(build(csv(tmp_path, "path,label\n" + rows)), ValidationConfig())
    with pytest.raises(DataRejected, match=r"'meat/fish'.*x/001\.jpg"):
        report.require()
