"""The one place that runs Great Expectations: a pandas table and a suite in, one outcome an expectation out."""

import logging
import threading
import warnings
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import great_expectations as gx
import pandas as pd
from great_expectations.expectations.expectation import Expectation

# Its loggers have levels of their own; what matters comes back as a result or an exception.
for _name in list(logging.root.manager.loggerDict):
    if _name.split(".")[0] == "great_expectations":
        logging.getLogger(_name).setLevel(logging.ERROR)
# Great Expectations keeps its current context in a global of the process.
_ONE_AT_A_TIME: Final = threading.Lock()


class Outcome(NamedTuple):
    """What one expectation found.

    Attributes:
        met: Whether the expectation was met.
        at_fault: Rows at fault; 0 for expectations on the table as a whole.
        rows: Index of the first rows at fault.
        expectation: Its name and arguments.
    """

    met: bool
    at_fault: int
    rows: tuple[int, ...]
    expectation: str


def suite(name: str, expectations: Sequence[Expectation]) -> Any:
    """A suite that can be printed."""
    return gx.ExpectationSuite(name=name, expectations=list(expectations))


def run_suite(table: pd.DataFrame, expectations: Sequence[Expectation], *, examples: int) -> list[Outcome]:
    """Check a table, whose index must be 0, 1, 2 ..; outcomes are in the order of the expectations.

    Raises:
        RuntimeError: Great Expectations could not evaluate an expectation.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context: Any = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
        whole = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})
        found = whole.validate(
            suite("table", expectations),
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": examples},
        )
    # Results come back grouped by column, not in the order of the suite.
    by_key = {_key(result.expectation_config): _outcome(result) for result in found.results}
    return [by_key[_key(expectation.configuration)] for expectation in expectations]


def _key(configuration: Any) -> str:
    arguments = {key: value for key, value in configuration.kwargs.items() if key != "batch_id"}
    return f"{configuration.type}({', '.join(f'{key}={value!r}' for key, value in sorted(arguments.items()))})"


def _outcome(result: Any) -> Outcome:
    failure = result.exception_info or {}
    # Errors of metrics come keyed by metric, those of the expectation itself as one flat mapping.
    if failure.get("raised_exception", bool(failure)):
        raise RuntimeError(f"Great Expectations failed on {_key(result.expectation_config)}: {failure}")
    details = result.result
    return Outcome(
        met=bool(result.success),
        at_fault=int(details.get("unexpected_count") or 0),
        rows=tuple(int(row) for row in details.get("partial_unexpected_index_list") or ()),
        expectation=_key(result.expectation_config),
    )
