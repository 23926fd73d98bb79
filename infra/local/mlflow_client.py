"""One MLflow client a process and store: opening the database checks its migrations, which takes a second."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from infra.local.locks import exclusive

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@lru_cache(maxsize=4)
def client(store: str) -> "MlflowClient":
    """The client of a `sqlite:///` store, whose folder is created."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    database = Path(store.removeprefix("sqlite:///"))
    # Two processes that migrate an empty database at the same time leave it broken.
    with exclusive(database.with_suffix(".lock")):
        opened = MlflowClient(store, store)
        opened.search_experiments(max_results=1)
    return opened
