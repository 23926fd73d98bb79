"""The model registry of one machine: MLflow's, on SQLite, with the bundles as plain folders beside it."""

import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import ModelNotFound
from infra.ports import RegisteredModel
from infra.settings import Settings
from infra.stores.mlflow_tracking import client
from model.files import exclusive, staged

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGEST = "digest"


class MlflowRegistry:
    """A ModelRegistry on MLflow: a version's source is its bundle's folder, an environment's champion is an alias."""

    def __init__(self, store: str, folder: Path) -> None:
        """Keep versions in the database `store` (an SQLAlchemy URL) and bundles in `folder`."""
        self._store = store
        self._folder = folder

    @property
    def _client(self) -> "MlflowClient":
        return client(self._store)

    def register(
        self, bundle: Path, *, name: str, digest: str, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> RegisteredModel:
        folder = self._folder / name / digest
        if not folder.is_dir():
            _copy(bundle, folder)
        with exclusive(self._folder / name / ".lock"):
            models = self._search(f"name='{name}' and tags.{DIGEST}='{digest}'")
            if models:
                return models[0]
            from mlflow.exceptions import MlflowException

            try:
                self._client.get_registered_model(name)
            except MlflowException:
                self._client.create_registered_model(name)
            version = self._client.create_model_version(
                name,
                source=folder.as_uri(),
                run_id=tags.get("mlflow_run"),
                tags={**tags, **{f"metric.{key}": f"{value:.6g}" for key, value in metrics.items()}, DIGEST: digest},
            )
        return self.get(name, int(version.version))

    def get(self, name: str, version: int) -> RegisteredModel:
        from mlflow.exceptions import MlflowException

        try:
            return _registered(self._client.get_model_version(name, str(version)))
        except MlflowException as error:
            versions = ", ".join(f"v{item.version}" for item in self.versions(name)) or "none"
            raise ModelNotFound(
                f"The registry has no version {version} of `{name}`; registered versions: {versions}."
            ) from error

    def versions(self, name: str) -> list[RegisteredModel]:
        return self._search(f"name='{name}'")

    def names(self) -> list[str]:
        """All model names that the registry knows."""
        return sorted(model.name for model in self._client.search_registered_models())

    def download(self, model: RegisteredModel, directory: Path) -> Path:
        source = self._folder / model.name / model.digest
        if not source.is_dir():
            raise ModelNotFound(f"The bundle of {model.label} is gone: {source} does not exist.")
        target = directory / model.digest
        if not target.is_dir():
            _copy(source, target)
        return target

    def tag(self, model: RegisteredModel, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(model.name, str(model.version), key, value)

    def champion(self, name: str, environment: str) -> RegisteredModel | None:
        from mlflow.exceptions import MlflowException

        try:
            return _registered(self._client.get_model_version_by_alias(name, environment))
        except MlflowException:
            return None

    def set_champion(self, model: RegisteredModel, environment: str) -> None:
        self._client.set_registered_model_alias(model.name, environment, str(model.version))

    def _search(self, query: str) -> list[RegisteredModel]:
        models = [_registered(item) for item in self._client.search_model_versions(query)]
        return sorted(models, key=lambda model: model.version, reverse=True)


def _copy(source: Path, target: Path) -> None:
    with staged(target, replace=False) as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)


def _registered(version: Any) -> RegisteredModel:
    return RegisteredModel(
        name=version.name,
        version=int(version.version),
        digest=version.tags[DIGEST],
        uri=version.source,
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, tz=UTC),
        tags={key: value for key, value in version.tags.items() if key != DIGEST},
    )


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
    names = list(environments)
    database = Path(settings.mlflow_store.removeprefix("sqlite:///"))
    if not database.is_file():
        return dict.fromkeys(names, ())
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            return {name: tuple(_read(connection, name)) for name in names}
    except (sqlite3.Error, KeyError):
        return _ask_mlflow(settings, names)


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
    models = MlflowRegistry(settings.mlflow_store, settings.path("registry"))
    names = models.names()
    return {
        environment: tuple(model for name in names if (model := models.champion(name, environment)) is not None)
        for environment in environments
    }
