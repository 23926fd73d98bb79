"""What every flow has in common: a telling name, and a final state that names the error or the outcome."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Flow, flow, runtime
from prefect.client.orchestration import get_client
from prefect.states import Cancelled, Completed, Failed

from infra.backend import load_result_blocks
from infra.runs.cancellation import run_is_cancelling
from model.errors import KnownError
from tasks.framework.error_table import translate_errors
from tasks.framework.failure_card import publish_fault
from tasks.framework.spans import run_span

P = ParamSpec("P")
R = TypeVar("R")

load_result_blocks()


def pipeline(name: str, run_name: str, *, keep_result: bool = False) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a function a Prefect flow of this platform.

    Args:
        name: What the flow is called.
        run_name: What a run is called until more is known; a format string over its arguments.
        keep_result: For the outermost flow, whose result a person reads. A subflow's is not kept: when its parent is
            rerun it runs again, and its stages reuse what they made (Prefect would hand a kept one over as a dict).

    A run that ends in a known error has a Failed state named after the error's class: people see it in the list of
    runs, `ahc trigger` maps it to its exit code, and a parent flow sees the error itself.
    """

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        def attempt(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                with run_span(name, function, *args, **kwargs) as tell, translate_errors():
                    result = function(*args, **kwargs)
                    tell(result)
                    return result
            except KnownError as error:
                publish_fault(error, name)
                message = f"{error} {error.next_step}"
                return cast("R", Failed(name=type(error).__name__, message=message, data=error))
            except Exception as error:
                publish_fault(error, name)
                raise

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                ended = attempt(*args, **kwargs)
            except Exception:
                if not run_is_cancelling():
                    raise
            else:
                if not run_is_cancelling():
                    return ended
            # The server takes no other end of it, and would show it as Cancelling for minutes.
            return cast("R", cancelled("It had ended by itself before it could be stopped; what it made is kept."))

        return flow(name=name, flow_run_name=run_name, persist_result=keep_result)(run)

    return decorate


def completed_as(name: str, message: str, result: R) -> R:
    """A final state of a successful run under a name of its own, such as NotPromoted; for a flow's `return`."""
    return cast("R", Completed(name=name, message=message, data=result))


def cancelled(message: str) -> None:
    """A final state of a run that somebody cancelled, after it has put its things in order; for a flow's `return`."""
    with get_client(sync_client=True) as client:
        # The engine's own proposal leaves a run in Cancelling.
        client.set_flow_run_state(cast("Any", runtime.flow_run.id), Cancelled(message=message), force=True)
    # Another one: that which the client has sent belongs to the run, and Prefect would take it for a subflow's.
    return cast("None", Cancelled(message=message))


def rename_run(name: str) -> None:
    """Give this flow run a better name once more is known, such as the version that it made."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(cast("Any", runtime.flow_run.id), name=name)
