"""Runs one training job for an engine without Prefect: `python -m deployments.entrypoints.training_job --job URL`.

Prints each update as one line of JSON, keeps how it ended beside the job, and exits with the code of docs/commands.md.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from time import monotonic
from typing import Final

from infra.settings import get_settings
from infra.stores.training_folder import Outcome, TrainingFolder
from infra.training import TrainingUpdate
from model.faults import Fault
from tasks.framework.error_table import translate_errors
from tasks.training.fit import fit_network, writes
from tasks.training.stop_signal import asked_to_stop

ATTEMPT: Final = "AZUREML_RUN_ID"
"""Azure ML's variable with the name of the job."""
QUIET_SECONDS: Final = 5.0


def main(job_url: str) -> int:
    """Fit the network of the job at this URL; answers the exit code."""
    folder = TrainingFolder(job_url.rpartition("/")[0])
    outcome = _outcome(folder)
    if outcome.exit_code or writes():
        folder.end(outcome)
    return outcome.exit_code


def _outcome(folder: TrainingFolder) -> Outcome:
    attempt = os.environ.get(ATTEMPT, "")
    try:
        with asked_to_stop() as stop, translate_errors():
            fit_network(folder.job(), get_settings(), printed(print), stop)
    except Exception as error:  # noqa: BLE001 - who waits reads of any
        traceback.print_exc()
        return Outcome(attempt=attempt, fault=Fault.of(error))
    return Outcome(attempt=attempt)


def printed(
    line: Callable[[str], object], *, clock: Callable[[], float] = monotonic
) -> Callable[[TrainingUpdate], None]:
    """Print each update; those with a share of the batches only as often as the log of a long training bears."""
    last = -QUIET_SECONDS

    def see(update: TrainingUpdate) -> None:
        nonlocal last
        if update.done is not None:
            if update.done < 1 and clock() - last < QUIET_SECONDS:
                return
            last = clock()
        line(update.line)

    return see


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the network of one training job.")
    parser.add_argument("--job", required=True, help="path or fsspec URL of its job.json")
    sys.exit(main(parser.parse_args().job))
