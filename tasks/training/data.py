"""Data: find the source, list it as an immutable manifest, validate that."""

import re
from pathlib import PurePosixPath
from typing import Any

from prefect import get_run_logger
from pydantic import Field

from infra.backend import backend
from infra.ports import RegisteredModel
from infra.settings import Settings, get_settings
from infra.stores.sample_data import SAMPLES
from model.data.manifest import (
    DataVersion,
    SplitConfig,
    build_manifest,
    frozen_splits,
    latest_manifest,
    read_manifest,
    source_fingerprint,
    write_manifest,
)
from model.errors import DataRejected
from model.validation.checks import validate
from model.validation.report import ValidationConfig, ValidationReport
from model.values import Frozen
from tasks.framework.artifacts import Progress, create_link_artifact, create_markdown_artifact, table
from tasks.framework.cache_key import key_of
from tasks.framework.gate_results import GateResult, show_gate
from tasks.framework.reports import how_to_open, keep_report
from tasks.framework.stage import Result, stage


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


class Listed(Result):
    """Where a catalogue shows a data version."""

    link: str


class Validation(Result):
    """The findings of Great Expectations; none of them blocks."""

    report: ValidationReport
    html: str = Field(description="Path or URL of the report for a browser.")


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
    uri = backend(settings).samples(request.source) if request.source in SAMPLES else request.source
    return Source(
        uri=uri,
        name=name_of(request),
        fingerprint=source_fingerprint(uri),
        known_splits=latest_manifest(_manifests(settings), name_of(request)),
    )


def _manifests(settings: Settings) -> str:
    """The folder or URL of all data versions."""
    return f"{backend(settings).data_root()}/data"


def name_of(request: DataRequest) -> str:
    """The name of the data set and its model: as requested, else made from the last part of the source."""
    if request.name:
        return request.name
    last = PurePosixPath(request.source.split("://")[-1].rstrip("/")).stem
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:60] or "images"


def _manifest_key(source: Source, split: SplitConfig) -> str:
    # The earlier manifest is left out: it only keeps images where they are, and it is this one from the next run on.
    return key_of("manifest", source.uri, source.name, source.fingerprint, split, code=["model.data.manifest"])


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
    data = write_manifest(frame, root=_manifests(settings), name=source.name, source_uri=source.uri)
    get_run_logger().info("Data version %s@%s: %d images.", data.name, data.version, data.images)
    return Manifest(data=data)


def list_data(data: DataVersion) -> None:
    """List a data version in the backend's catalogue, where it has one."""
    if backend(get_settings()).data_catalogue() is not None:
        _register_data(data)


@stage("List data", "list {data.name}@{data.version}", key=lambda data: key_of("listed", data.manifest_uri, code=[]))
def _register_data(data: DataVersion) -> Listed:
    catalogue = backend(get_settings()).data_catalogue()
    assert catalogue is not None
    link = catalogue.register(data)
    create_link_artifact(key="data-asset", link=link, link_text=data.label, description=f"Data {data.label}")
    return Listed(link=link)


def _validation_key(data: DataVersion, config: ValidationConfig, champion: RegisteredModel | None) -> str:
    reference = _reference(data, champion)
    return key_of(
        "validation",
        data.version,
        data.source_uri,
        config,
        reference,
        code=["model.validation.report", "model.validation.html_report"],
    )


@stage("Validate data", "validate {data.name}@{data.version}", key=_validation_key)
def validate_data(data: DataVersion, config: ValidationConfig, champion: RegisteredModel | None) -> Validation:
    """Check the manifest with Great Expectations.

    Raises:
        DataRejected: A finding blocks; names the files.
    """
    from model.validation.html_report import render_report

    frame = read_manifest(data.manifest_uri)
    reference = _reference(data, champion)
    report = validate(frame, config, reference=read_manifest(reference) if reference else None)
    page = keep_report(
        f"{data.name}@{data.version}", "data-report.html", render_report(report, frame, data).encode("utf-8")
    )
    create_markdown_artifact(
        key="data-report", markdown=_markdown(report, data, page), description=f"Data report {data.name}@{data.version}"
    )
    try:
        report.require()
    except DataRejected as error:
        show_findings(report)
        error.next_step = f"Open {how_to_open(page)}, correct or remove the named files, and run again."
        raise
    return Validation(report=report, html=page)


def show_findings(report: ValidationReport) -> None:
    """Show the result of each check, whether made now or before; a warning passes."""
    show_gate(
        "data",
        (
            GateResult(
                check=finding.check, passed=finding.passed or finding.severity != "blocks", detail=finding.message
            )
            for finding in report.findings
        ),
    )


def _reference(data: DataVersion, champion: RegisteredModel | None) -> str | None:
    """Manifest of the champion's data, where it is another one."""
    if champion is None or champion.tags.get("data_version") == data.version:
        return None
    return champion.tags.get("data_uri")


def _markdown(report: ValidationReport, data: DataVersion, page: str) -> str:
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
        + f"\n\nThe report with pictures: {how_to_open(page)}\n"
    )
