"""One MLflow client a process and tracking store: opening a database checks its migrations, which takes a second."""

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.local.locks import exclusive

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE: Final = "sqlite:///"


@lru_cache(maxsize=4)
def client(tracking_uri: str) -> "MlflowClient":
    """The client of a store; the folder of a `sqlite:///` one is created."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Importing MLflow configures logging anew: under Python's logging lock that empties the handlers that there are.
    # Prefect's waits for its own thread then, which hangs for good where that thread wants to log.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    from mlflow.tracking import MlflowClient

    if not tracking_uri.startswith(SQLITE):
        return MlflowClient(tracking_uri, tracking_uri)
    database = Path(tracking_uri.removeprefix(SQLITE))
    # Two processes that migrate an empty database at the same time leave it broken.
    with exclusive(database.with_suffix(".lock")):
        opened = MlflowClient(tracking_uri, tracking_uri)
        opened.search_experiments(max_results=1)
    return opened
