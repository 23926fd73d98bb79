"""What a check found, and how to mend it; the one way to run a check."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from model.errors import KnownError
from model.values import Frozen

Severity = Literal["blocks", "warns"]


class Finding(Frozen):
    """The outcome of one check; `fix` says what to do where it is not ok."""

    name: str
    ok: bool
    severity: Severity
    detail: str
    fix: str = ""

    @classmethod
    def of(cls, name: str, detail: str, fix: str = "", severity: Severity = "blocks") -> Self:
        """The finding that is ok where there is nothing to fix."""
        return cls(name=name, ok=not fix, severity=severity, detail=detail, fix=fix)

    @property
    def sentence(self) -> str:
        return f"{self.name}: {self.detail.removesuffix('.')}. {self.fix}".strip()

    @property
    def blocks(self) -> bool:
        return not self.ok and self.severity == "blocks"


@dataclass(frozen=True)
class Check:
    """One thing that must be as it should be."""

    name: str
    find: Callable[[str], Finding]
    """Answers the finding of this name, or raises what keeps it from finding out."""
    severity: Severity = "blocks"
    """Of such an error."""


def run_check(check: Check, *, outage: Severity | None = None) -> Finding:
    """Answer what a check finds, or what keeps it from finding out.

    Args:
        check: Is run here and now.
        outage: Severity of a transient error, which may be over when it matters; None raises it.
    """
    try:
        return check.find(check.name)
    except KnownError as error:
        if not error.transient:
            return finding_of_error(check.name, error, check.severity)
        if outage is None:
            raise
        return finding_of_error(check.name, error, outage)


def finding_of_error(name: str, error: KnownError, severity: Severity = "blocks") -> Finding:
    """The finding that an error stands for."""
    return Finding(name=name, ok=False, severity=severity, detail=str(error), fix=error.next_step)
