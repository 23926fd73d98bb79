"""The result of each check of a gate, as tables that people see in the UI and `ahc trigger` reads for a build."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from prefect.artifacts import create_table_artifact

from infra.ports import RegisteredModel
from model.values import Frozen

if TYPE_CHECKING:
    from model.evaluation.verdict import Verdict

GATES: Final = "gates-"
"""Leads the key of a table artifact with one row for each check of a gate."""
JUDGED: Final = "judged-model"
"""The key of a table artifact with the one version that a run made, and its verdict."""


class GateResult(Frozen):
    """One check of a gate."""

    check: str
    passed: bool
    detail: str = ""
    value: float | None = None
    limit: float | None = None


def show_verdict(model: RegisteredModel, verdict: "Verdict") -> None:
    """Show which version was made, whether it was promoted, and each check, whether judged now or before."""
    create_table_artifact(
        key=JUDGED,
        description=f"{model.label}: {verdict.outcome}",
        table=[
            {
                "name": model.name,
                "version": model.version,
                "digest": model.digest,
                "verdict": verdict.outcome,
                "reason": verdict.reason,
            }
        ],
    )
    show_gate(
        "verdict",
        (
            GateResult(check=each.name, passed=each.passed, detail=each.detail, value=each.value, limit=each.limit)
            for each in verdict.checks
        ),
    )


def show_gate(gate: str, results: Iterable[GateResult]) -> None:
    """Show the result of each check of a gate such as `smoke-test-acceptance`."""
    rows = [result.model_dump(mode="json") for result in results]
    passed = sum(row["passed"] for row in rows)
    create_table_artifact(key=f"{GATES}{gate}", description=f"{gate}: {passed} of {len(rows)} passed", table=rows)


def gate_results(check: str, problems: Iterable[str], *, if_none: str) -> list[GateResult]:
    """A failed result for each problem, or one passed result of this check.

    Args:
        check: The name of the check where it passed.
        problems: Sentences; what stands before the first colon names the check that failed.
        if_none: The detail of the passed result.
    """
    failures = [GateResult(check=problem.split(":")[0], passed=False, detail=problem) for problem in problems]
    return failures or [GateResult(check=check, passed=True, detail=if_none)]
