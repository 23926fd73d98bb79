"""What the registry calls champion, read in milliseconds: opening MLflow takes 1.5 s, too long for `ahc status`."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from infra.ports import RegisteredModel
from infra.settings import Settings

CHAMPION = """
    SELECT version.name, version.version, version.source, version.creation_time
    FROM registered_model_aliases AS alias JOIN model_versions AS version
    ON version.name = alias.name AND version.version = alias.version
    WHERE alias.alias = ? ORDER BY version.last_updated_time DESC
"""
TAGS = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"


def champions(settings: Settings, environments: Iterable[str]) -> dict[str, tuple[RegisteredModel, ...]]:
    """Per environment, the champion of each model name, last released first.

    Reads MLflow's tables directly; where a newer MLflow has others, it is asked itself.
    """
    wanted = list(environments)
    database = Path(settings.mlflow_store.removeprefix("sqlite:///"))
    if not database.is_file():
        return dict.fromkeys(wanted, ())
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            return {name: tuple(_read(connection, name)) for name in wanted}
    except (sqlite3.Error, KeyError):
        return _ask_mlflow(settings, wanted)


def _read(connection: sqlite3.Connection, environment: str) -> Iterable[RegisteredModel]:
    for name, version, source, created in connection.execute(CHAMPION, (environment,)).fetchall():
        tags = dict(connection.execute(TAGS, (name, version)).fetchall())
        yield RegisteredModel(
            name=name,
            version=int(version),
            digest=tags.pop("digest"),
            uri=source,
            created=datetime.fromtimestamp(created / 1000, tz=UTC),
            tags=tags,
        )


def _ask_mlflow(settings: Settings, environments: Iterable[str]) -> dict[str, tuple[RegisteredModel, ...]]:
    from infra.local.registry import MlflowRegistry

    models = MlflowRegistry(settings.mlflow_store, settings.path("registry"))
    names = models.names()
    found = {item: [models.champion(name, item) for name in names] for item in environments}
    return {item: tuple(model for model in found[item] if model is not None) for item in found}
