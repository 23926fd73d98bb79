"""How Prefect is set up on one machine: every PREFECT_ variable that its server, worker, flow runs and clients need."""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from infra.settings import AZURE_RESULTS, PROJECT, Settings

WORK_POOL = "local"
"""The block (type/name) that keeps results with the backend `azure`; `ahc deploy` makes it."""


def prefect_environment(settings: Settings) -> dict[str, str]:
    """The PREFECT_ variables of the server under `settings.home`, its worker, its runs and its clients."""
    azure = {"PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": AZURE_RESULTS} if settings.backend == "azure" else {}
    return {
        **azure,
        "PREFECT_HOME": str(settings.path("prefect")),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_SERVER_UI_API_URL": settings.prefect_api_url,
        # A missing server is an error to show, never a reason to start a hidden one.
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        # Reruns repeat only what failed because every result is kept, as JSON that a person can read.
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_LOCAL_STORAGE_PATH": str(settings.path("results")),
        # Nobody outside hears of it.
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # A person waits: a run starts within a second and its log lines are seen as they come.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
        "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "10",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.25",
        # Who queues for a deployment's turn, such as a second release, asks again so soon after a no.
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # A server that starts again knows whose turn it is in a deployment. In its memory alone the turn of a run that
        # goes on would be lost, and that run would be ended for it.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # SQLite under a burst answers late rather than never.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "30",
        # The block catalogue is filled after the start (`infra.local.platform.platform`), not before the first answer.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_LOGGING_SETTINGS_PATH": str(Path(__file__).with_name("logging.yaml")),
        "PREFECT_LOGGING_LEVEL": settings.log_level,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_CLI_PROMPT": "false",
    }


def process_environment(settings: Settings) -> dict[str, str]:
    """The whole environment of a process that the platform starts: this one's, and what Prefect and the flows need."""
    path = os.environ.get("PYTHONPATH", "")
    # Runs start in folders of their own; a relative entry would point into those.
    entries = [str(PROJECT), *(os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)]  # noqa: PTH100
    return {
        **os.environ,
        **prefect_environment(settings),
        "AHC_HOME": str(settings.home),
        "AHC_ENVIRONMENTS": str(settings.environments.absolute()),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(entries)),
        # `python` of the work pool's command is this one.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PYTHONUNBUFFERED": "1",
        # Runs wait four minutes for a server that is away, with their states and log lines, not one; a person who asks
        # something is told at once.
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        # Threads of a training that wait for each other sleep instead of spinning: with a neighbour on the same cores,
        # spinning makes an epoch take four times as long.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def use_prefect(settings: Settings, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set up Prefect for clients in this process; what the caller's environment says already wins.

    With PREFECT_API_URL set, commands talk to that server instead of the one that `ahc up` starts.
    """
    for name, value in prefect_environment(settings).items():
        environment.setdefault(name, value)
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
