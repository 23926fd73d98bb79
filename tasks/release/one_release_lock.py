"""One release of an environment at a time, whoever started it: a deployment's run, a lifecycle, a process of its own.

Runs of one deployment queue before they start, by the deployment's own concurrency limit (prefect.yaml). This is the
lock beneath, for everything that limit doesn't see. It goes with its holder: at once on one machine, after a minute at
most on several.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging import Logger, LoggerAdapter
from typing import Any, Final

from prefect import get_run_logger, runtime

from infra.backend import backend
from infra.config.environments import Environment
from infra.settings import get_settings
from tasks.release.release_runs import releasing_now

ANNOUNCE_WAIT_AFTER: Final = 2.0
"""Seconds before waiting for the lock is logged."""


@contextmanager
def one_release_at_a_time(environment: Environment) -> Iterator[None]:
    """Wait until nobody else changes what this environment runs, and keep others waiting inside the block.

    Not while a person decides or a version is watched: a rollback must not wait for that. A block within a block of
    the same environment waits for ever.
    """
    announcement = threading.Timer(
        ANNOUNCE_WAIT_AFTER, _announce_wait, (get_run_logger(), environment.name, str(runtime.flow_run.id))
    )
    announcement.daemon = True
    announcement.start()
    with ExitStack() as lock:
        try:
            lock.enter_context(backend(get_settings()).exclusive(f"endpoints/{environment.name}/release"))
        finally:
            announcement.cancel()
        yield


def _announce_wait(log: "Logger | LoggerAdapter[Any]", environment: str, run_id: str) -> None:
    others = [f"{run.name} ({str(run.id)[:8]})" for run in releasing_now(environment) if str(run.id) != run_id]
    log.info("Waits for its turn in %s; now it is that of %s.", environment, ", ".join(others) or "another process")
