"""What every task has in common: a telling name, retries by type of error, reuse by key, the record of its fault.

A stage is a Prefect task. It answers a `Result`, a small frozen value with the run that made it, so that a later run
that reuses it can say from where.
"""

import functools
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, ParamSpec, TypeVar

from prefect import Task, runtime
from prefect.context import TaskRunContext
from prefect.tasks import exponential_backoff
from pydantic import Field

from infra.runs.correlation import root_run
from model.values import Frozen
from tasks.framework.error_table import is_transient, translate_errors
from tasks.framework.failure_card import LastLines, publish_fault
from tasks.framework.spans import reused_span, run_span

P = ParamSpec("P")
R = TypeVar("R", bound="Result")

RETRIES: Final = 3


class Origin(Frozen):
    """The run that made a result."""

    root_run_id: str = Field(description="The run that a person started, of which the making flow run was a part.")
    flow_run_name: str
    at: datetime
    seconds: float


class Result(Frozen):
    """What a stage answers."""

    origin: Origin | None = None


def stage(
    name: str, run_name: str, *, key: Callable[..., str] | None = None, always: bool = False
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task of this platform.

    Args:
        name: What the task is called in the UI.
        run_name: What one run of it is called; a format string over its arguments.
        key: Answers, from the same arguments, the key of everything that the result depends on (see `key_of`). A
            result of the same key is used again, by any run; without, only by a rerun of the same run.
        always: Never use a result again: for what looks at the world as it is now.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            started = monotonic()
            try:
                with run_span(name, function, *args, **kwargs) as tell, translate_errors():
                    result = function(*args, **kwargs)
                    tell(result)
            except Exception as error:
                if not is_transient(error) or runtime.task_run.run_count > RETRIES:
                    publish_fault(error, name)
                raise
            return result.model_copy(update={"origin": _origin(monotonic() - started)})

        def cache_key(_: TaskRunContext, arguments: dict[str, Any]) -> str | None:
            return key(**arguments) if key else None

        return _Stage(
            run,
            name=name,
            task_run_name=run_name,
            cache_key_fn=cache_key if key else None,
            persist_result=not always,
            retries=RETRIES,
            retry_delay_seconds=exponential_backoff(backoff_factor=2),
            retry_jitter_factor=0.5,
            retry_condition_fn=_worth_retrying,
        )

    return decorate


class _Stage(Task[P, R]):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = datetime.now(UTC)
        result = super().__call__(*args, **kwargs)
        # The function itself, which has a span of its own, didn't run for it.
        reused_span(self.name, result, started)
        return result


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - any error of a task is asked for its kind
        return is_transient(error)
    return False


def _origin(seconds: float) -> Origin:
    return Origin(
        root_run_id=root_run(),
        flow_run_name=str(runtime.flow_run.name or "no flow run"),
        at=datetime.now(UTC),
        seconds=round(seconds, 2),
    )


for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addHandler(LastLines())
