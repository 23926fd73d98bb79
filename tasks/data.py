"""Data: find the source, list it as an immutable manifest, validate that."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from prefect import get_run_logger
from pydantic import Field

from infra.local.samples import SAMPLES, fetch
from infra.ports import Frozen, RegisteredModel
from infra.settings import get_settings
from model.errors import DataRejected
from model.manifest import (
    DataVersion,
    SplitConfig,
    build_manifest,
    frozen_splits,
    read_manifest,
    source_fingerprint,
    write_manifest,
)
from model.validation import ValidationConfig, ValidationReport, validate
from tasks.artifacts import Progress, create_markdown_artifact, table
from tasks.stage import Result, key_of, stage


class DataRequest(Frozen):
    """Which images to learn from."""

    source: str = Field(
        default="food",
        description="A folder of <label>/<image> files, a CSV or Parquet manifest, an fsspec URL of these, or the name "
        "of a sample data set (food, digits).",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,60}$",
        description="Name of the data set and of its model; made from the source where it is not given.",
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Shares of the test and validation splits.")


class Source(Result):
    """Where the images are."""

    uri: str
    name: str
    fingerprint: str = Field(description="Changes when a file is added, removed or changed.")
    known_splits: str | None = Field(description="Manifest whose images keep their splits.")


class Manifest(Result):
    """The immutable list of the images."""

    data: DataVersion


class Validation(Result):
    """What Great Expectations found; nothing that blocks."""

    report: ValidationReport
    html: str = Field(description="Path of the report for a browser.")


class ValidatedData(Frozen):
    """A manifest that passed its checks."""

    manifest: Manifest
    validation: Validation

    @property
    def data(self) -> DataVersion:
        return self.manifest.data


@stage("Locate data", "locate {request.source}")
def locate_data(request: DataRequest) -> Source:
    """Fetch a sample data set, or take the source as it is."""
    settings = get_settings()
    uri = str(fetch(request.source, settings.path("samples"))) if request.source in SAMPLES else request.source
    return Source(
        uri=uri,
        name=name_of(request),
        fingerprint=source_fingerprint(uri),
        known_splits=_latest_manifest(settings.path("data", name_of(request))),
    )


def _latest_manifest(folder: Path) -> str | None:
    manifests = sorted(folder.glob("*/manifest.parquet"), key=lambda path: path.stat().st_mtime)
    return str(manifests[-1]) if manifests else None


def name_of(request: DataRequest) -> str:
    """The name of the data set and its model: as requested, else made from the last part of the source."""
    if request.name:
        return request.name
    last = PurePosixPath(request.source.split("://")[-1].rstrip("/")).stem
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:60] or "images"


def _manifest_key(source: Source, split: SplitConfig) -> str:
    # The earlier manifest is left out: it only keeps images where they are, and it is this one from the next run on.
    return key_of("manifest", source.uri, source.name, source.fingerprint, split, code=["model.manifest"])


@stage("Build manifest", "manifest of {source.name}", key=_manifest_key)
def build_data_manifest(source: Source, split: SplitConfig) -> Manifest:
    """Hash, decode and measure every image, and split them; an image that had a split keeps it."""
    settings = get_settings()
    progress = Progress("images", f"Reading images of {source.name}")
    frame = build_manifest(
        source.uri,
        split=split,
        frozen=frozen_splits(read_manifest(source.known_splits)) if source.known_splits else None,
        workers=settings.workers,
        progress=lambda done, total: progress.update(done, total, f"{done:,} of {total:,} images read"),
    )
    data = write_manifest(frame, root=str(settings.path("data")), name=source.name, source_uri=source.uri)
    get_run_logger().info("Data version %s@%s: %d images.", data.name, data.version, data.images)
    return Manifest(data=data)


def _validation_key(data: DataVersion, config: ValidationConfig, champion: RegisteredModel | None) -> str:
    reference = _reference(data, champion)
    return key_of(
        "validation", data.version, data.source_uri, config, reference, code=["model.validation", "model.data_report"]
    )


@stage("Validate data", "validate {data.name}@{data.version}", key=_validation_key)
def validate_data(data: DataVersion, config: ValidationConfig, champion: RegisteredModel | None) -> Validation:
    """Check the manifest with Great Expectations.

    Raises:
        DataRejected: A finding blocks; names the files.
    """
    from model.data_report import render_report

    frame = read_manifest(data.manifest_uri)
    reference = _reference(data, champion)
    report = validate(frame, config, reference=read_manifest(reference) if reference else None)
    page = get_settings().path("reports", f"{data.name}@{data.version}") / "data-report.html"
    page.write_text(render_report(report, frame, data), encoding="utf-8")
    create_markdown_artifact(
        key="data-report", markdown=_markdown(report, data, page), description=f"Data report {data.name}@{data.version}"
    )
    try:
        report.require()
    except DataRejected as error:
        error.next_step = f"Open {page}, correct or remove the named files, and run again."
        raise
    return Validation(report=report, html=str(page))


def _reference(data: DataVersion, champion: RegisteredModel | None) -> str | None:
    """Manifest of the champion's data, where it is another one."""
    if champion is None or champion.tags.get("data_version") == data.version:
        return None
    return champion.tags.get("data_uri")


def _markdown(report: ValidationReport, data: DataVersion, page: Path) -> str:
    mark = {True: "passed", False: "**FAILED**"}
    findings: list[tuple[Any, ...]] = [
        (mark[finding.passed], finding.severity, finding.check, finding.message, ", ".join(finding.examples[:3]))
        for finding in report.findings
    ]
    counts: list[tuple[Any, ...]] = [
        (label, *(splits.get(part, 0) for part in ("train", "validation", "test")))
        for label, splits in data.counts.items()
    ]
    return (
        f"# Data {data.name}@{data.version}: {'accepted' if report.passed else 'rejected'}\n\n"
        f"{data.images:,} images of {len(data.labels)} labels from `{data.source_uri}`.\n\n"
        + table(("result", "severity", "check", "what was found", "examples"), findings)
        + "\n\n## Images per label\n\n"
        + table(("label", "train", "validation", "test"), counts)
        + f"\n\nThe report with pictures: `{page}`\n"
    )
