"""The one id that ties a build, its runs, their models, the endpoint and its requests together."""

import sys
from functools import lru_cache
from typing import Any, Final

from infra.settings import get_settings

TAG: Final = "correlation:"
"""Leads the tag of a flow run that was given a correlation id from outside."""


def correlation_id() -> str:
    """AHC_CORRELATION_ID where it is set, else the id of the root flow run; empty outside of both."""
    return get_settings().correlation_id or root_run()


def correlation_tags() -> list[str]:
    """What tags a flow run that this process starts, so that the run is found by the build's id."""
    given = get_settings().correlation_id
    return [f"{TAG}{given}"] if given else []


def root_run() -> str:
    """Id of the flow run that a person or schedule started and that this code is a part of; empty outside of runs."""
    # Whoever is inside a run has loaded it.
    runtime: Any = sys.modules.get("prefect.runtime")
    run = runtime.flow_run.id if runtime else None
    return _root_of(str(run)) if run else ""


@lru_cache(maxsize=16)
def _root_of(_flow_run_id: str) -> str:
    # Asks the server once for each flow run.
    from prefect import runtime

    return str(runtime.flow_run.root_flow_run_id)
