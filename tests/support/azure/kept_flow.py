"""A flow whose results are kept, as processes: `python -m tests.support.azure.kept_flow run|rerun ...`."""

import json
import sys
from pathlib import Path
from uuid import UUID

from deployments.cli import in_process
from infra.errors import ConfigurationError
from infra.settings import get_settings

if __name__ == "__main__":
    in_process.connect(get_settings())

from tasks.framework.cache_key import key_of
from tasks.framework.pipeline import pipeline
from tasks.framework.stage import Result, stage


class Number(Result):
    value: int


def _count(log: str, step: str) -> None:
    with Path(log).open("a") as file:
        file.write(f"{step}\n")


@stage("Keyed", "keyed {value}", key=lambda value, log: key_of("keyed", value, code=[]))
def keyed(value: int, log: str) -> Number:
    _count(log, "keyed")
    return Number(value=value * 2)


@stage("Once", "once")
def once(number: Number, log: str) -> Number:
    _count(log, "once")
    return Number(value=number.value + 1)


@stage("Last", "last")
def last(number: Number, log: str, broken: str) -> Number:
    _count(log, "last")
    if Path(broken).exists():
        raise ConfigurationError("Broken on purpose.")
    return Number(value=number.value * 10)


@pipeline("kept", "kept {value}", keep_result=True)
def kept(value: int, log: str, broken: str) -> Number:
    return last(once(keyed(value, log), log), log, broken)


def main(mode: str, *arguments: str) -> None:
    in_process.load_flow = lambda _: kept
    if mode == "run":
        value, log, broken = arguments
        state = in_process.run_here("kept", {"value": int(value), "log": log, "broken": broken})
    else:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            run = client.read_flow_run(UUID(arguments[0]))
        state = in_process.rerun_here(run, "kept")
    result = state.result(raise_on_failure=False)
    told = {
        "run": str(state.state_details.flow_run_id),
        "state": state.name,
        "value": getattr(result, "value", None),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
