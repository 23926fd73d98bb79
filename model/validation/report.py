"""What a data set must be like, and what was found: plain values. The checking is in `model/validation/checks.py`."""

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, model_validator

from model.errors import DataRejected
from model.values import Frozen

if TYPE_CHECKING:
    pass

Severity = Literal["blocks", "warns"]
CheckName = Literal[
    "schema",
    "label_characters",
    "known_labels",
    "classes",
    "class_size",
    "splits",
    "undecodable_share",
    "conflicting_labels",
    "leaked_images",
    "undecodable_images",
    "image_size",
    "aspect_ratio",
    "class_balance",
    "exact_duplicates",
    "near_duplicates",
    "class_drift",
    "overlooked_files",
]
SEVERITIES: Final[dict[CheckName, Severity]] = {
    "schema": "blocks",
    "label_characters": "blocks",
    "known_labels": "blocks",
    "classes": "blocks",
    "class_size": "blocks",
    "splits": "blocks",
    "undecodable_share": "blocks",
    "conflicting_labels": "blocks",
    "leaked_images": "blocks",
    "undecodable_images": "warns",
    "image_size": "warns",
    "aspect_ratio": "warns",
    "class_balance": "warns",
    "exact_duplicates": "warns",
    "near_duplicates": "warns",
    "class_drift": "warns",
    "overlooked_files": "warns",
}


class ValidationConfig(Frozen):
    """Limits of the data validation."""

    labels: tuple[str, ...] = Field(
        default=(), description="The labels that are allowed; each must have images. Empty: whatever the source has."
    )
    min_images_per_class: int = Field(default=10, ge=3, description="Fewest decodable images of a class.")
    max_class_ratio: float = Field(
        default=10, ge=1, description="How many times as many images the largest class may have as the smallest."
    )
    max_undecodable_share: float = Field(
        default=0.05, ge=0, lt=1, description="Share of images that may be undecodable; these are left out."
    )
    min_edge: int = Field(default=32, ge=1, description="Smallest width and height in pixels.")
    max_edge: int = Field(default=10_000, ge=1, description="Largest width and height in pixels.")
    max_aspect_ratio: float = Field(default=4, ge=1, description="Longest edge divided by the shortest.")
    near_duplicate_bits: int = Field(
        default=4, ge=0, le=8, description="Two images are near-duplicates up to so many of 64 differing hash bits."
    )
    max_class_drift: float = Field(
        default=0.25,
        gt=0,
        description="Largest population stability index of class shares against the reference data; "
        "0.1 to 0.25 is commonly read as a moderate shift.",
    )
    severities: dict[CheckName, Severity] = Field(
        default_factory=dict, description="Checks that shall block or only warn, other than by default."
    )

    @model_validator(mode="after")
    def _limits_leave_room(self) -> "ValidationConfig":
        if self.min_edge > self.max_edge:
            raise ValueError(f"min_edge {self.min_edge} is above max_edge {self.max_edge}")
        return self

    def severity(self, check: CheckName) -> Severity:
        return self.severities.get(check, SEVERITIES[check])


class Finding(Frozen):
    """One check's outcome. `count` is how many images (or labels, or files) are at fault; `examples` are paths."""

    check: CheckName
    severity: Severity
    passed: bool
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()
    expectation: str = Field(default="", description="What Great Expectations was asked.")


class ValidationReport(Frozen):
    """All findings; `passed` where none failed that blocks."""

    passed: bool
    findings: tuple[Finding, ...]
    rows: int
    seconds: float

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(item for item in self.findings if not item.passed and item.severity == "blocks")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(item for item in self.findings if not item.passed and item.severity == "warns")

    def require(self) -> None:
        """Do nothing where the data passed.

        Raises:
            DataRejected: Says each blocking finding and names its files.
        """
        if self.passed:
            return
        parts = [
            item.message + (f" Files: {', '.join(item.examples[:5])}." if item.examples else "")
            for item in self.blocking
        ]
        raise DataRejected(" ".join(parts))
