import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from model.data.manifest import DataVersion, SplitConfig, build_manifest, write_manifest
from model.data.splits import SPLITS
from model.errors import DataRejected
from model.validation.checks import validate
from model.validation.html_report import render_report
from model.validation.near_duplicates import nearest_twins
from model.validation.report import SEVERITIES, Finding, ValidationConfig, ValidationReport
from tests.support.pictures import bomb, picture, write_tree

CONFIG = ValidationConfig()


def manifest(counts: dict[str, int], **columns: object) -> pd.DataFrame:
    """Rows without files: different contents, far apart hashes, splits by turns."""
    random = np.random.default_rng(0)
    labels = [label for label, images in counts.items() for _ in range(images)]
    rows = len(labels)
    return pd.DataFrame(
        {
            "path": [f"{label}/{number}.jpg" for number, label in enumerate(labels)],
            "label": labels,
            "split": [("train", "train", "validation", "test")[number % 4] for number in range(rows)],
            "sha256": [f"{number:064x}" for number in range(rows)],
            "bytes": 1000,
            "width": 300,
            "height": 200,
            "format": "JPEG",
            "mode": "RGB",
            "phash": [f"{value:016x}" for value in random.integers(1, 2**63, rows).tolist()],
            "error": pd.Series([None] * rows, dtype="object"),
        }
        | columns
    )


def check(report: ValidationReport, name: str) -> Finding:
    return next(finding for finding in report.findings if finding.check == name)


def failed(report: ValidationReport) -> set[str]:
    return {finding.check for finding in report.findings if not finding.passed}


def test_a_sound_data_set_passes_every_check():
    frame = manifest({"cat": 40, "dog": 60})
    report = validate(frame, ValidationConfig(labels=("cat", "dog")), reference=frame)
    assert report.passed
    assert failed(report) == set()
    assert {finding.check for finding in report.findings} == set(SEVERITIES)
    assert report.rows == 100
    assert all(finding.expectation.startswith("expect_") for finding in report.findings)
    report.require()
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


def test_small_sets_of_odd_pictures_pass(tmp_path):
    for number, mode in enumerate(("RGBA", "P", "L", "LA")):
        for image in range(18):
            (tmp_path / mode).mkdir(exist_ok=True)
            size = (37 + 11 * image, 90 - 3 * image)
            picture(100 * number + image, *size, mode=mode).save(tmp_path / mode / f"{image}.png")
    report = validate(build_manifest(str(tmp_path), split=SplitConfig()), CONFIG)
    assert report.passed
    assert check(report, "undecodable_images").passed


def test_a_manifest_without_a_column_blocks_and_names_it():
    report = validate(manifest({"cat": 20, "dog": 20}).drop(columns=["sha256", "phash"]), CONFIG)
    assert not report.passed
    assert [finding.check for finding in report.findings] == ["schema"]
    assert "no column sha256, phash" in report.findings[0].message


def test_rows_that_are_not_as_they_must_be_block():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[3, "split"] = "holdout"
    frame.loc[5, "path"] = frame.loc[4, "path"]
    report = validate(frame, CONFIG)
    finding = check(report, "schema")
    assert not report.passed
    assert {"cat/3.jpg", "cat/4.jpg"} <= set(finding.examples)
    assert "path" in finding.message
    assert "split" in finding.message
    assert not validate(frame.iloc[:0], CONFIG).passed


@pytest.mark.parametrize("label", ["a/b", "a\\b", "a\nb", "a\n", "\x1b[31mred", "", "x" * 121])
def test_a_label_that_can_not_name_a_folder_blocks(label):
    report = validate(manifest({label: 20, "dog": 20}), CONFIG)
    finding = check(report, "label_characters")
    assert not report.passed
    assert failed(report) == {"label_characters"}
    assert repr(label) in finding.message
    assert "\n" not in finding.message
    assert finding.count == 1
    assert len(finding.examples) == 3


def test_labels_in_any_script_pass():
    assert validate(manifest({"🥕": 20, "żółć": 20, "a b & c": 20}), CONFIG).passed


def test_labels_outside_the_allowed_ones_and_missing_ones_block():
    report = validate(manifest({"cat": 20, "dgo": 20}), ValidationConfig(labels=("cat", "dog")))
    assert failed(report) == {"known_labels", "class_size", "class_balance", "splits"}
    assert "'dgo'" in check(report, "known_labels").message
    assert "'dog' (0)" in check(report, "class_size").message
    assert check(report, "known_labels").examples[0] == "dgo/20.jpg"


def test_one_class_only_blocks():
    report = validate(manifest({"cat": 40}), CONFIG)
    assert failed(report) == {"classes"}
    assert "only 'cat'" in check(report, "classes").message


def test_a_class_with_few_images_blocks_and_one_with_fewer_than_others_warns():
    report = validate(manifest({"cat": 200, "dog": 15, "eel": 8}), CONFIG)
    assert failed(report) == {"class_size", "class_balance"}
    assert "'eel' (8)" in check(report, "class_size").message
    assert check(report, "class_balance").count == 2
    assert check(report, "class_balance").severity == "warns"


def test_a_class_that_is_missing_in_a_split_blocks():
    frame = manifest({"cat": 40, "dog": 40})
    frame.loc[(frame["label"] == "dog") & (frame["split"] == "test"), "split"] = "train"
    report = validate(frame, CONFIG)
    assert failed(report) == {"splits"}
    assert "'dog' in test" in check(report, "splits").message


def test_few_undecodable_images_warn_and_many_block(tmp_path):
    write_tree(tmp_path, {"cat": 20, "dog": 20})
    (tmp_path / "cat" / "text.jpg").write_text("no image")
    few = validate(build_manifest(str(tmp_path), split=SplitConfig()), CONFIG)
    assert few.passed
    assert failed(few) == {"undecodable_images"}
    assert check(few, "undecodable_images").examples == ("cat/text.jpg",)
    (tmp_path / "dog" / "bomb.png").write_bytes(bomb())
    whole = (tmp_path / "dog" / "000.jpg").read_bytes()
    (tmp_path / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    many = validate(build_manifest(str(tmp_path), split=SplitConfig()), CONFIG)
    assert failed(many) == {"undecodable_images", "undecodable_share"}
    with pytest.raises(DataRejected) as caught:
        many.require()
    for part in ("7.0%", "cat/text.jpg", "dog/bomb.png", "dog/cut.jpg", "20000 x 20000"):
        assert part in str(caught.value)


def test_nothing_decodable_is_reported_not_raised():
    frame = manifest({"cat": 20, "dog": 20}, error="broken", split="", phash="", width=0, height=0)
    report = validate(frame, ValidationConfig(max_undecodable_share=0), reference=manifest({"cat": 20, "dog": 20}))
    assert {"undecodable_share", "undecodable_images", "class_size", "splits"} <= failed(report)


def test_sizes_and_aspect_ratios_outside_the_range_warn():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[0, ["width", "height"]] = (20, 20)
    frame.loc[1, ["width", "height"]] = (100, 401)
    frame.loc[2, ["width", "height"]] = (50, 20_000)
    report = validate(frame, CONFIG)
    assert report.passed
    assert check(report, "image_size").examples == ("cat/0.jpg", "cat/2.jpg")
    assert "cat/0.jpg (20 x 20)" in check(report, "image_size").message
    assert check(report, "aspect_ratio").examples == ("cat/1.jpg", "cat/2.jpg")


def test_exact_duplicates_warn_and_show_the_copies_together():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[[3, 13], "sha256"] = frame.loc[2, "sha256"]
    frame.loc[[3, 13], "split"] = frame.loc[2, "split"]
    report = validate(frame, CONFIG)
    finding = check(report, "exact_duplicates")
    assert failed(report) == {"exact_duplicates"}
    assert report.passed
    assert finding.count == 3
    assert finding.examples == ("cat/2.jpg", "cat/3.jpg", "cat/13.jpg")
    assert "1 different image:" in finding.message


def test_the_same_image_under_two_labels_blocks_and_names_both_files():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[25, ["sha256", "split"]] = frame.loc[4, ["sha256", "split"]].to_numpy()
    report = validate(frame, CONFIG)
    assert failed(report) == {"conflicting_labels"}
    with pytest.raises(DataRejected, match=r"cat = dog.*cat/4\.jpg, dog/25\.jpg"):
        report.require()


def test_copies_in_two_splits_block():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[1, "sha256"] = frame.loc[3, "sha256"]
    report = validate(frame, CONFIG)
    assert "leaked_images" in failed(report)
    assert not report.passed
    assert set(check(report, "leaked_images").examples) == {"cat/1.jpg", "cat/3.jpg"}


def test_unread_images_are_nobodys_copies():
    frame = manifest({"cat": 100, "dog": 100})
    frame.loc[[1, 2, 101], ["sha256", "phash", "split", "error"]] = ("", "", "", "vanished")
    assert failed(validate(frame, CONFIG)) == {"undecodable_images"}


def test_near_duplicates_in_two_splits_warn_in_pairs():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[7, "phash"] = f"{int(frame.loc[4, 'phash'], 16) ^ 0b1011:016x}"  # test and train
    frame.loc[9, "phash"] = f"{int(frame.loc[8, 'phash'], 16) ^ 0b1:016x}"  # both train
    frame.loc[11, "phash"] = f"{int(frame.loc[12, 'phash'], 16) ^ 0b11111:016x}"  # too far
    report = validate(frame, CONFIG)
    finding = check(report, "near_duplicates")
    assert failed(report) == {"near_duplicates"}
    assert finding.count == 2
    assert finding.examples == ("cat/4.jpg", "cat/7.jpg")
    assert failed(validate(frame, ValidationConfig(near_duplicate_bits=2))) == set()


def test_drift_of_class_shares_warns_and_says_what_moved():
    before = manifest({"cat": 500, "dog": 500, "eel": 100})
    report = validate(manifest({"cat": 900, "dog": 100, "fox": 100}), CONFIG, reference=before)
    finding = check(report, "class_drift")
    assert report.passed
    assert not finding.passed
    for part in ("'dog' 45.5% -> 9.1%", "'eel' 9.1% -> 0.0%", "'fox' 0.0% -> 9.1%"):
        assert part in finding.message
    assert "class_drift" not in {item.check for item in validate(before, CONFIG).findings}


def test_a_handful_of_images_does_not_drift_by_chance():
    report = validate(manifest({"cat": 13, "dog": 21}), CONFIG, reference=manifest({"cat": 21, "dog": 13}))
    assert check(report, "class_drift").passed


def test_overlooked_files_warn():
    frame = manifest({"cat": 20, "dog": 20})
    frame.attrs["overlooked"] = ["cat/notes.md", "kale/"]
    report = validate(frame, CONFIG)
    assert failed(report) == {"overlooked_files"}
    assert check(report, "overlooked_files").examples == ("cat/notes.md", "kale/")


def test_severities_are_a_choice():
    frame = manifest({"cat": 20, "dog": 20})
    frame.loc[1, "width"] = 5
    frame.loc[2, "sha256"] = frame.loc[6, "sha256"]
    frame.loc[2, "split"] = frame.loc[6, "split"]
    strict = ValidationConfig(severities={"image_size": "blocks"})
    assert not validate(frame, strict).passed
    assert validate(manifest({"cat": 40}), ValidationConfig(severities={"classes": "warns"})).passed
    with pytest.raises(ValueError, match="image_sizes"):
        ValidationConfig.model_validate({"severities": {"image_sizes": "blocks"}})


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 6])
def test_twins_are_those_of_a_comparison_of_all_pairs(limit):
    random = np.random.default_rng(limit)
    # Few originals with few flipped bits: many pairs at every distance, equal ones too.
    originals = random.integers(1, 2**63, 40, dtype=np.uint64)
    flips = random.integers(0, 64, (800, 5))
    hashes = originals[random.integers(0, 40, 800)]
    for column in range(5):
        hashes ^= np.uint64(1) << flips[:, column].astype(np.uint64)
    hashes[:20] = 0
    splits = random.integers(-1, 3, 800).astype(np.int8)
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None, :]).astype(float)
    compared = (splits >= 0) & (hashes != 0)
    bits[(splits[:, None] == splits[None, :]) | ~(compared[:, None] & compared[None, :])] = np.inf
    nearest = bits.min(axis=1)
    found = nearest_twins(hashes, splits, limit)
    np.testing.assert_array_equal(np.nan_to_num(found.bits, nan=np.inf), np.where(nearest <= limit, nearest, np.inf))
    rows = np.flatnonzero(found.row >= 0)
    assert (bits[rows, found.row[rows]] == found.bits[rows]).all()


# --- the report ---------------------------------------------------------------------------------------------------


def report_of(folder, store) -> tuple[str, ValidationReport, DataVersion]:
    frame = build_manifest(str(folder), split=SplitConfig())
    data = write_manifest(frame, root=str(store), name="pets", source_uri=str(folder))
    report = validate(frame, CONFIG)
    return render_report(report, frame, data), report, data


def test_the_report_shows_verdict_classes_findings_and_pictures(tmp_path):
    write_tree(tmp_path / "source", {"cat": 20, "dog": 12})
    shutil.copy(tmp_path / "source" / "cat" / "000.jpg", tmp_path / "source" / "dog" / "also.jpg")
    (tmp_path / "source" / "dog" / "text.jpg").write_text("no")
    page, report, data = report_of(tmp_path / "source", tmp_path / "store")
    assert "Rejected" in page
    assert data.version in page
    for finding in report.findings:
        assert finding.message.split("'")[0] in page.replace("&#x27;", "'")
    for part in ("cat/000.jpg", "dog/also.jpg", "dog/text.jpg", "The bytes are not an image"):
        assert part in page
    assert [f"{split}: {data.counts['cat'][split]}</title>" in page for split in SPLITS] == [True] * 3
    pictures = re.findall(r'src="data:image/jpeg;base64,', page)
    assert len(pictures) == 2 + 4 + 4
    write_tree(tmp_path / "sound", {"cat": 20, "dog": 12})
    assert ">Passed<" in report_of(tmp_path / "sound", tmp_path / "store")[0]


def test_the_report_asks_nothing_from_outside_and_runs_no_markup_of_labels_or_paths(tmp_path):
    label = '<img src="http:x" onerror=alert(1)>🥕'
    write_tree(tmp_path / "source", {label.replace("/", ""): 12, "dog": 12})
    (tmp_path / "source" / "dog" / "<script>alert(1)<.jpg").write_text("no")
    page = report_of(tmp_path / "source", tmp_path / "store")[0]
    assert "<script" not in page
    assert "<img src=" not in page
    assert "&lt;script&gt;" in page
    assert "🥕" in page
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:)', page)
    assert not re.search(r"url\(|@import|<link|<iframe", page)
    assert "default-src 'none'" in page


def test_the_report_does_without_pictures_that_have_gone(tmp_path):
    write_tree(tmp_path / "source", {"cat": 12, "dog": 12})
    frame = build_manifest(str(tmp_path / "source"), split=SplitConfig())
    data = write_manifest(frame, root=str(tmp_path / "store"), name="pets", source_uri=str(tmp_path / "source"))
    shutil.rmtree(tmp_path / "source")
    page = render_report(validate(frame, CONFIG), frame, data)
    assert "data:image" not in page.split("</head>")[1]


def test_thumbnails_are_whole_small_jpegs(tmp_path):
    import base64

    write_tree(tmp_path / "source", {"cat": 12, "dog": 12}, width=900, height=700)
    page = report_of(tmp_path / "source", tmp_path / "store")[0]
    for content in re.findall(r"data:image/jpeg;base64,([^\"]+)", page):
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        image.load()
        assert max(image.size) <= 320
    assert len(page) < 400_000


def test_the_config_is_described_for_the_form():
    schema = ValidationConfig.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    json.dumps(schema)
    with pytest.raises(ValueError, match="above max_edge"):
        ValidationConfig(min_edge=100, max_edge=50)
