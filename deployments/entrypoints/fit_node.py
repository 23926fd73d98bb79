"""What a pod of the pool `aks-gpu` runs: the first node of a training its Prefect run, the others their part of it.

The nodes are the indices of one Kubernetes Job: `python -m deployments.entrypoints.fit_node`.
"""

import logging
import os
import sys
from typing import Final
from uuid import UUID

from infra.settings import get_settings
from infra.training import TrainingJob, TrainingUpdate

INDEX: Final = "JOB_COMPLETION_INDEX"
"""Kubernetes' variable with the number of the pod in its Job."""
RUN: Final = "PREFECT__FLOW_RUN_ID"
"""Prefect's variable with the run that the worker started the Job for."""


def main() -> int:
    """Answers the exit code of a node other than the first; the first becomes Prefect's engine."""
    os.environ["NODE_RANK"] = node = os.environ.get(INDEX, "0")
    if node == "0":
        os.execv(sys.executable, [sys.executable, "-m", "prefect.engine"])  # noqa: S606
    return take_part(UUID(os.environ[RUN]), node)


def take_part(run_id: UUID, node: str) -> int:
    """Fit together with the run's own process; what this one has to say goes to the run's log."""
    from prefect.client.orchestration import get_client
    from prefect.logging.configuration import setup_logging
    from prefect.logging.loggers import flow_run_logger

    from model.errors import KnownError
    from tasks.framework.error_table import translate_errors
    from tasks.training.fit import fit_network
    from tasks.training.stop_signal import asked_to_stop

    setup_logging()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
    job = TrainingJob.model_validate(run.parameters["job"])
    log = logging.LoggerAdapter(flow_run_logger(run), {})

    def tell(level: int, text: str) -> None:
        log.log(level, "[node %s] %s", node, text)

    def see(update: TrainingUpdate) -> None:
        tell(logging.WARNING if update.level == "warning" else logging.INFO, update.sentence)

    tell(logging.INFO, "takes part.")
    try:
        with asked_to_stop() as stop, translate_errors():
            fit_network(job, get_settings(), see, stop)
    except Exception as error:
        tell(logging.ERROR, f"{type(error).__name__}: {error}")
        if isinstance(error, KnownError):
            return error.exit_code
        raise
    tell(logging.INFO, "is done.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
