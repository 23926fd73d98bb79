"""The checks of a data set: which expectations each one is, on which table, and what it says to a person."""

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import pandas as pd
from great_expectations.expectations.expectation import Expectation

from model.data.manifest import COLUMNS
from model.data.splits import SPLITS
from model.validation import messages as findings
from model.validation.derived_tables import Tables, derive_tables
from model.validation.great_expectations_run import Outcome, run_suite
from model.validation.messages import EXAMPLES, Facts
from model.validation.report import CheckName, Finding, ValidationConfig, ValidationReport

if TYPE_CHECKING:
    import pandas as pd

# By name, since its modules re-export their classes in a way that type checkers refuse.
gxe: Any = import_module("great_expectations.expectations")

TableName = Literal["images", "labels", "shares", "overlooked"]
LABEL_PATTERN: Final = r"\A[^/\\\x00-\x1f\x7f-\x9f\u2028\u2029]{1,120}\Z"
"""A label becomes a folder, a table's row and a line of a log: no separators, no control characters."""


class Check(NamedTuple):
    """One check.

    Attributes:
        name: As the config and the report know it.
        table: The table of `Tables` that it looks at.
        expectations: What is expected there; empty where the check has nothing to compare with.
        message: What it found, in plain words.
        examples: Paths of images (or files) that show a failure.
    """

    name: CheckName
    table: TableName
    expectations: Callable[[Tables], list[Expectation]]
    message: Callable[[Facts], str]
    examples: Callable[[Facts], Iterable[str]] = findings.images_at_fault


def schema_expectations() -> list[Expectation]:
    """On the manifest itself, before anything is derived from it."""
    return [
        gxe.ExpectTableColumnsToMatchSet(column_set=list(COLUMNS), exact_match=False),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ]


def row_expectations() -> list[Expectation]:
    """On the manifest itself, once its columns are there."""
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="path"),
        gxe.ExpectColumnValuesToBeUnique(column="path"),
        gxe.ExpectColumnValuesToNotBeNull(column="label"),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=[*SPLITS, ""]),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex=r"\A([0-9a-f]{64})?\Z"),
        gxe.ExpectColumnValuesToMatchRegex(column="phash", regex=r"\A([0-9a-f]{16})?\Z"),
    ]


CHECKS: Final = (
    Check(
        "label_characters",
        "labels",
        lambda _: [gxe.ExpectColumnValuesToMatchRegex(column="label", regex=LABEL_PATTERN)],
        findings.label_characters,
        findings.images_of_labels,
    ),
    Check(
        "known_labels",
        "labels",
        lambda tables: (
            [gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(tables.config.labels))]
            if tables.config.labels
            else []
        ),
        findings.known_labels,
        findings.images_of_labels,
    ),
    Check(
        "classes",
        "labels",
        lambda _: [gxe.ExpectTableRowCountToBeBetween(min_value=2)],
        findings.classes,
        findings.nothing,
    ),
    Check(
        "class_size",
        "labels",
        lambda tables: [
            gxe.ExpectColumnValuesToBeBetween(column="images", min_value=tables.config.min_images_per_class)
        ],
        findings.class_size,
        findings.images_of_labels,
    ),
    Check(
        "splits",
        "labels",
        lambda _: [gxe.ExpectColumnValuesToBeBetween(column=split, min_value=1) for split in SPLITS],
        findings.splits,
        findings.images_of_labels,
    ),
    Check(
        "undecodable_share",
        "images",
        lambda tables: [gxe.ExpectColumnValuesToBeNull(column="error", mostly=1 - tables.config.max_undecodable_share)],
        findings.undecodable_share,
    ),
    Check(
        "conflicting_labels",
        "images",
        lambda _: [gxe.ExpectColumnValuesToBeBetween(column="labels_of_image", max_value=1)],
        findings.conflicting_labels,
        findings.images_with_copies,
    ),
    Check(
        "leaked_images",
        "images",
        lambda _: [gxe.ExpectColumnValuesToBeBetween(column="splits_of_image", max_value=1)],
        findings.leaked_images,
        findings.images_with_copies,
    ),
    Check(
        "undecodable_images",
        "images",
        lambda _: [gxe.ExpectColumnValuesToBeNull(column="error")],
        findings.undecodable_images,
    ),
    Check(
        "image_size",
        "images",
        lambda tables: [
            gxe.ExpectColumnValuesToBeBetween(
                column=edge, min_value=tables.config.min_edge, max_value=tables.config.max_edge
            )
            for edge in ("width", "height")
        ],
        findings.image_size,
    ),
    Check(
        "aspect_ratio",
        "images",
        lambda tables: [gxe.ExpectColumnValuesToBeBetween(column="aspect", max_value=tables.config.max_aspect_ratio)],
        findings.aspect_ratio,
    ),
    Check(
        "class_balance",
        "labels",
        lambda tables: [
            gxe.ExpectColumnValuesToBeBetween(column="share_of_largest", min_value=1 / tables.config.max_class_ratio)
        ],
        findings.class_balance,
        findings.images_of_labels,
    ),
    Check(
        "exact_duplicates",
        "images",
        lambda _: [gxe.ExpectColumnValuesToBeBetween(column="copies", max_value=1)],
        findings.exact_duplicates,
        findings.images_with_copies,
    ),
    Check(
        "near_duplicates",
        "images",
        lambda tables: [
            gxe.ExpectColumnValuesToBeBetween(
                column="twin_bits", min_value=tables.config.near_duplicate_bits, strict_min=True
            )
        ],
        findings.near_duplicates,
        findings.images_with_twins,
    ),
    Check(
        "class_drift",
        "shares",
        lambda tables: (
            [gxe.ExpectColumnSumToBeBetween(column="psi", max_value=tables.drift_limit)] if len(tables.shares) else []
        ),
        findings.class_drift,
        findings.nothing,
    ),
    Check(
        "overlooked_files",
        "overlooked",
        lambda _: [gxe.ExpectTableRowCountToBeBetween(max_value=0)],
        findings.overlooked_files,
        findings.overlooked_paths,
    ),
)


def run_checks(frame: pd.DataFrame, config: ValidationConfig, reference: pd.DataFrame | None) -> list[Finding]:
    """Every check's finding, those that block first. With a broken schema, that is the only one."""
    frame = frame.reset_index(drop=True)
    outcomes = run_suite(frame, schema_expectations(), examples=EXAMPLES)
    if all(outcome.met for outcome in outcomes):
        outcomes += run_suite(frame, row_expectations(), examples=EXAMPLES)
    schema = _schema_finding(frame, outcomes, config)
    if not schema.passed:
        return [schema]
    tables = derive_tables(frame, config, reference)
    findings = [schema, *_findings(tables)]
    return sorted(findings, key=lambda finding: (finding.passed, finding.severity))


def _findings(tables: Tables) -> list[Finding]:
    expected = {check.name: check.expectations(tables) for check in CHECKS}
    outcomes: dict[CheckName, list[Outcome]] = {}
    for name in ("images", "labels", "shares", "overlooked"):
        checks = [check for check in CHECKS if check.table == name and expected[check.name]]
        expectations = [item for check in checks for item in expected[check.name]]
        answers = iter(run_suite(getattr(tables, name), expectations, examples=EXAMPLES) if expectations else [])
        for check in checks:
            outcomes[check.name] = [next(answers) for _ in expected[check.name]]
    return [_finding(check, outcomes[check.name], tables) for check in CHECKS if check.name in outcomes]


def _finding(check: Check, outcomes: list[Outcome], tables: Tables) -> Finding:
    failed = [outcome for outcome in outcomes if not outcome.met]
    facts = Facts(
        passed=not failed,
        at_fault=max((outcome.at_fault for outcome in failed), default=0),
        # In the order of the table, each once.
        rows=sorted({row for outcome in failed for row in outcome.rows}),
        table=getattr(tables, check.table),
        tables=tables,
    )
    return Finding(
        check=check.name,
        severity=tables.config.severity(check.name),
        passed=facts.passed,
        message=check.message(facts),
        count=facts.at_fault,
        examples=() if facts.passed else tuple(dict.fromkeys(check.examples(facts)))[:EXAMPLES],
        expectation="; ".join(outcome.expectation for outcome in outcomes),
    )


def _schema_finding(frame: pd.DataFrame, outcomes: list[Outcome], config: ValidationConfig) -> Finding:
    failed = [outcome for outcome in outcomes if not outcome.met]
    missing = [column for column in COLUMNS if column not in frame]
    rows = sorted({row for outcome in failed for row in outcome.rows})
    if missing:
        message = f"The manifest has no column {', '.join(missing)}."
    elif frame.empty:
        message = "The manifest has no rows."
    elif failed:
        message = f"The manifest's rows are not as they must be: {'; '.join(item.expectation for item in failed)}."
    else:
        message = f"The manifest has all {len(COLUMNS)} columns, and a path, label and split in each row."
    return Finding(
        check="schema",
        severity=config.severity("schema"),
        passed=not failed,
        message=message,
        count=max((outcome.at_fault for outcome in failed), default=0),
        examples=tuple(str(frame["path"].iloc[row]) for row in rows[:EXAMPLES]),
        expectation="; ".join(outcome.expectation for outcome in outcomes),
    )


def validate(
    frame: "pd.DataFrame", config: ValidationConfig, *, reference: "pd.DataFrame | None" = None
) -> ValidationReport:
    """Check a manifest with Great Expectations.

    Args:
        frame: What `build_manifest` returned or `read_manifest` read.
        config: Limits and severities.
        reference: The manifest whose class shares these are compared with: the champion's.
    """
    from model.validation.checks import run_checks

    started = time.perf_counter()
    findings = run_checks(frame, config, reference)
    return ValidationReport(
        passed=all(item.passed or item.severity == "warns" for item in findings),
        findings=tuple(findings),
        rows=len(frame),
        seconds=round(time.perf_counter() - started, 3),
    )
