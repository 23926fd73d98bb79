"""The model registry on Azure ML: a version is a custom model whose files are its bundle."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import PlatformResources, platform_resources
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.leases import exclusive_blob
from infra.errors import ModelNotFound, NotProvisioned
from infra.ports import RegisteredModel
from infra.settings import Settings
from model.files import staged

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

LIMIT: Final = 256
"""https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""
PART: Final = "~"


def split_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags whose long values go on in `name~2`, `name~3` and so on; the opposite of `join_tags`."""
    split = {}
    for name, value in tags.items():
        parts = [value[start : start + LIMIT] for start in range(0, len(value), LIMIT)] or [""]
        split[name] = parts[0]
        split |= {f"{name}{PART}{number}": part for number, part in enumerate(parts[1:], start=2)}
    return split


def join_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with the parts of long values put together again."""
    joined = {name: value for name, value in tags.items() if PART not in name}
    for name in joined:
        number = 2
        while (part := tags.get(f"{name}{PART}{number}")) is not None:
            joined[name] += part
            number += 1
    return joined


DIGEST = "digest"
CHAMPION = "champion."


class AmlRegistry:
    """A ModelRegistry on the platform's Azure ML workspace.

    The digest and the metrics are properties, which nobody changes later; all else is tags. The champion of an
    environment is the version with the newest `champion.ENVIRONMENT` tag, so that one write makes it. Azure ML
    replaces a version that is written again, so that writers of one name take turns by a blob lease.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def _client(self) -> "MLClient":
        return ml_client(platform_resources(self._settings))

    def register(
        self, bundle: Path, *, name: str, digest: str, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> RegisteredModel:
        from azure.ai.ml.entities import Model

        facts = {DIGEST: digest, **{f"metric.{key}": f"{value:.6g}" for key, value in metrics.items()}}
        with self._writing(name, f"registering {name} with digest {digest[:12]}"):
            models = self._all(name)
            if same := [model for model in models if model.digest == digest]:
                return same[0]
            version = max((model.version for model in models), default=0) + 1
            return _registered(
                self._client.models.create_or_update(
                    Model(
                        name=name,
                        version=str(version),
                        path=str(bundle),
                        type="custom_model",
                        tags=split_tags(tags),
                        properties=facts,
                    )
                )
            )

    def get(self, name: str, version: int) -> RegisteredModel:
        return _registered(self._read(name, version))

    def versions(self, name: str) -> list[RegisteredModel]:
        with azure_errors(f"listing the versions of {name}"):
            return self._all(name)

    def names(self) -> list[str]:
        with azure_errors("listing the models"), self._workspace():
            return sorted(str(model.name) for model in self._client.models.list())

    def download(self, model: RegisteredModel, directory: Path) -> Path:
        target = directory / model.digest
        if target.is_dir():
            return target
        with staged(target, replace=False) as draft:
            self._read(model.name, model.version)
            with azure_errors(f"downloading {model.label}"):
                self._client.models.download(model.name, str(model.version), download_path=draft)
            # The files lie in a folder that is called as the one that was registered.
            (folder,) = (draft / model.name).iterdir()
            for file in folder.iterdir():
                file.rename(draft / file.name)
            shutil.rmtree(draft / model.name)
        return target

    def tag(self, model: RegisteredModel, tags: Mapping[str, str]) -> None:
        with self._writing(model.name, f"tagging {model.label}"):
            current = self._read(model.name, model.version)
            current.tags = split_tags({**join_tags(current.tags), **tags})
            self._client.models.create_or_update(current)

    def champion(self, name: str, environment: str) -> RegisteredModel | None:
        key = CHAMPION + environment
        crowned = [model for model in self.versions(name) if key in model.tags]
        return max(crowned, key=lambda model: model.tags[key], default=None)

    def set_champion(self, model: RegisteredModel, environment: str) -> None:
        self.tag(model, {CHAMPION + environment: datetime.now(UTC).isoformat()})

    def _read(self, name: str, version: int) -> Any:
        with azure_errors(f"reading {name} v{version}"):
            if model := if_present(lambda: self._client.models.get(name, str(version))):
                return model
            versions = ", ".join(f"v{item.version}" for item in self._all(name)) or "none"
        raise ModelNotFound(f"The registry has no version {version} of `{name}`; registered versions: {versions}.")

    def _all(self, name: str) -> list[RegisteredModel]:
        from azure.core.exceptions import ResourceNotFoundError

        with self._workspace():
            try:
                models = [_registered(model) for model in self._client.models.list(name=name)]
            except ResourceNotFoundError:
                if name in self.names():
                    raise
                return []
        return sorted(models, key=lambda model: model.version, reverse=True)

    @contextmanager
    def _workspace(self) -> Iterator[None]:
        """Tell a workspace that is gone from a model that is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            yield
        except ResourceNotFoundError as error:
            workspace = platform_resources(self._settings).workspace
            raise NotProvisioned(f"The Azure ML workspace `{workspace}` is not there: {error.message}") from error

    @contextmanager
    def _writing(self, name: str, doing: str) -> Iterator[None]:
        account = platform_resources(self._settings).storage_account
        lock = blob_service(account).get_blob_client("models", f"locks/registry/{name}")
        with azure_errors(doing), exclusive_blob(lock):
            yield


@lru_cache(maxsize=4)
def ml_client(platform: PlatformResources) -> "MLClient":
    """The client of the platform's workspace; making it takes a second."""
    import logging

    # It tells every deprecation of its own; errors still come through.
    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
    from azure.ai.ml import MLClient

    return MLClient(
        credential(),
        platform.subscription_id,
        platform.resource_group,
        platform.workspace,
        enable_telemetry=False,
        show_progress=False,
    )


def _registered(model: Any) -> RegisteredModel:
    properties = dict(model.properties or {})
    metrics = {key: value for key, value in properties.items() if key.startswith("metric.")}
    return RegisteredModel(
        name=model.name,
        version=int(model.version),
        digest=properties[DIGEST],
        uri=model.path,
        created=model.creation_context.created_at,
        tags={**join_tags(model.tags or {}), **metrics},
    )
