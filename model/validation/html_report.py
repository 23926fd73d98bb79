"""The data report: one HTML page with everything inside, for a browser without a network."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

import pandas as pd
from PIL import Image

from model.data.decoding import open_image, to_rgb
from model.data.manifest import DataVersion
from model.data.sources import read_bytes
from model.data.splits import SPLITS
from model.errors import ImageRejected
from model.validation.report import CheckName, Finding, ValidationReport

_THUMBNAIL: Final = (160, 116)
_CLASSES_SHOWN: Final = 60
_CLASSES_WITH_SAMPLES: Final = 24
_SAMPLES: Final = 4
_TITLES: Final[dict[CheckName, str]] = {
    "schema": "Form of the manifest",
    "label_characters": "Characters of labels",
    "known_labels": "Allowed labels",
    "classes": "Number of classes",
    "class_size": "Images per class",
    "splits": "Images in each split",
    "undecodable_share": "Share of undecodable images",
    "conflicting_labels": "Same image, different labels",
    "leaked_images": "Same image in two splits",
    "undecodable_images": "Undecodable images",
    "image_size": "Image sizes",
    "aspect_ratio": "Aspect ratios",
    "class_balance": "Balance of classes",
    "exact_duplicates": "Exact duplicates",
    "near_duplicates": "Near-duplicates between splits",
    "class_drift": "Drift of class shares",
    "overlooked_files": "Other files in the source",
}


def render_report(report: ValidationReport, frame: pd.DataFrame, data: DataVersion) -> str:
    """A self-contained page: verdict, findings with example images, classes, facts.

    Args:
        report: What `validate` found.
        frame: The manifest that was validated.
        data: Its version; thumbnails are read from `data.source_uri`. One that can't be read is left out.
    """
    template = Template(files("model").joinpath("data_report.html").read_text(encoding="utf-8"))
    verdict, verdict_class = _verdict(report)
    return template.substitute(
        name=_text(data.name),
        version=data.version,
        verdict=verdict,
        verdict_class=verdict_class,
        tiles=_tiles(report, frame, data),
        failed=_failed(report, frame, data.source_uri),
        classes=_classes(frame, data),
        passed=_passed(report),
        facts=_facts(report, frame, data),
    )


def _text(value: object) -> str:
    """Escaped, and with control characters made visible: labels and paths hold whatever people typed."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)))


def _verdict(report: ValidationReport) -> tuple[str, str]:
    if not report.passed:
        return "Rejected", "bad"
    return ("Passed with warnings", "warn") if report.warnings else ("Passed", "good")


def _tiles(report: ValidationReport, frame: pd.DataFrame, data: DataVersion) -> str:
    tiles = [
        (f"{data.images:,}", "usable images"),
        (f"{len(data.labels):,}", "classes"),
        (f"{int(frame['error'].notna().sum()):,}", "undecodable"),
        (f"{len(report.blocking)}", "blocking"),
        (f"{len(report.warnings)}", "warnings" if len(report.warnings) != 1 else "warning"),
    ]
    return "".join(f'<div class="card tile"><b>{value}</b><span>{word}</span></div>' for value, word in tiles)


# --- findings -----------------------------------------------------------------------------------------------------


def _failed(report: ValidationReport, frame: pd.DataFrame, source_uri: str) -> str:
    failed = [*report.blocking, *report.warnings]
    if not failed:
        return ""
    wanted = {path for finding in failed for path in finding.examples}
    rows = {str(row.path): row for row in frame[frame["path"].isin(wanted)].itertuples()} if "path" in frame else {}
    return "<h2>Findings</h2>" + "".join(_card(finding, rows, source_uri) for finding in failed)


def _card(finding: Finding, rows: Mapping[str, object], source_uri: str) -> str:
    blocks = finding.severity == "blocks"
    examples = "".join(_figure(path, rows.get(path), source_uri) for path in finding.examples)
    return (
        f'<section class="card finding is-{"bad" if blocks else "warn"}">'
        f'<h3><span class="pill {"bad" if blocks else "warn"}">{"blocks" if blocks else "warns"}</span>'
        f"{_TITLES[finding.check]}</h3><p>{_text(finding.message)}</p>"
        + (f'<div class="examples">{examples}</div>' if examples else "")
        + f"<details><summary>what was expected</summary><code>{_text(finding.expectation)}</code></details></section>"
    )


def _figure(path: str, row: object, source_uri: str) -> str:
    if row is None:
        return f'<figure><figcaption class="mono">{_text(path)}</figcaption></figure>'
    error = getattr(row, "error", None)
    details = [f'<span class="mono">{_text(path)}</span>']
    if error:
        details.append(f'<span class="error">{_text(error)}</span>')
    else:
        details.append(
            f'<span class="soft">{_text(getattr(row, "label", ""))} · {_text(getattr(row, "split", ""))}</span>'
            f'<span class="soft">{getattr(row, "width", 0):,} × {getattr(row, "height", 0):,} pixels</span>'
        )
    picture = "" if error else _thumbnail(source_uri, path)
    picture = picture or f'<div class="missing">{"can’t be decoded" if error else "no preview"}</div>'
    return f"<figure>{picture}<figcaption>{''.join(details)}</figcaption></figure>"


def _thumbnail(source_uri: str, path: str) -> str:
    try:
        image = to_rgb(open_image(read_bytes(source_uri, path)), at_least=max(_THUMBNAIL))
    except (OSError, ImageRejected):
        return ""
    image.thumbnail((2 * _THUMBNAIL[0], _THUMBNAIL[1]), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{_text(path)}" src="data:image/jpeg;base64,{content}">'


def _passed(report: ValidationReport) -> str:
    rows = "".join(
        f'<tr><td><span class="pill good">ok</span></td><td><b>{_TITLES[finding.check]}</b><br>'
        f'<span class="soft">{_text(finding.message)}</span></td></tr>'
        for finding in report.findings
        if finding.passed
    )
    return f'<table class="passed">{rows}</table>' if rows else '<p class="soft">Nothing.</p>'


# --- classes ------------------------------------------------------------------------------------------------------


def _classes(frame: pd.DataFrame, data: DataVersion) -> str:
    shown = sorted(data.labels, key=lambda label: -sum(data.counts[label].values()))[:_CLASSES_SHOWN]
    largest = max((sum(data.counts[label].values()) for label in shown), default=1)
    rows = "".join(
        f'<tr><td class="label">{_text(label)}</td>'
        f'<td class="samples">{_samples(frame, label, data) if place < _CLASSES_WITH_SAMPLES else ""}</td>'
        f'<td class="bar">{_bar(data.counts[label], largest)}</td>' + _numbers(data.counts[label]) + "</tr>"
        for place, label in enumerate(shown)
    )
    if len(data.labels) > len(shown):
        rows += f'<tr><td class="soft" colspan="7">and {len(data.labels) - len(shown):,} smaller classes</td></tr>'
    heads = "".join(f'<th class="number">{word}</th>' for word in (*SPLITS, "all"))
    return f"<table><tr><th>class</th><th>images</th><th></th>{heads}</tr>{rows}</table>"


def _numbers(counts: dict[str, int]) -> str:
    values = [*(counts[split] for split in SPLITS), sum(counts.values())]
    return "".join(f'<td class="number">{value:,}</td>' for value in values)


def _bar(counts: dict[str, int], largest: int) -> str:
    parts, start = [], 0.0
    for split in SPLITS:
        width = 100 * counts[split] / largest
        parts.append(
            f'<rect class="{split}" x="{start:.3f}" y="0" width="{width:.3f}" height="14">'
            f"<title>{split}: {counts[split]:,}</title></rect>"
        )
        start += width
    return f'<svg viewBox="0 0 100 14" preserveAspectRatio="none" role="img">{"".join(parts)}</svg>'


def _samples(frame: pd.DataFrame, label: str, data: DataVersion) -> str:
    usable: Sequence[str] = frame.loc[(frame["label"] == label) & frame["error"].isna(), "path"].tolist()
    # Spread over the class: neighbours in the listing are often alike.
    chosen = [usable[len(usable) * place // _SAMPLES] for place in range(min(_SAMPLES, len(usable)))]
    return " ".join(_thumbnail(data.source_uri, path) for path in dict.fromkeys(chosen))


# --- facts --------------------------------------------------------------------------------------------------------


def _facts(report: ValidationReport, frame: pd.DataFrame, data: DataVersion) -> str:
    usable = frame[frame["error"].isna()]
    facts = {
        "source": data.source_uri,
        "manifest": data.manifest_uri,
        "size": f"{frame['bytes'].sum() / 1e6:,.1f} MB in {len(frame):,} files",
        "formats": _shares(usable["format"]),
        "colour modes": _shares(usable["mode"]),
        "checked": f"{report.rows:,} rows in {report.seconds:.1f} s with Great Expectations",
    }
    return "".join(f"<dt>{word}</dt><dd>{_text(value)}</dd>" for word, value in facts.items())


def _shares(values: Iterable[str]) -> str:
    counts = pd.Series(list(values), dtype="object").value_counts()
    return ", ".join(f"{value} {count:,}" for value, count in counts.items()) or "none"
