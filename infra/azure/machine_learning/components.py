"""The training code in the Azure ML workspace: an environment, a component and a pipeline of one version."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import PlatformResources, platform_resources
from infra.azure.machine_learning.registry import ml_client
from infra.azure.machine_learning.tracking import STUDIO, workspace_id
from infra.errors import ConfigurationError, NotProvisioned
from infra.settings import PROJECT, Settings
from model.values import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.ai.ml import MLClient

DEFINITIONS: Final = PROJECT / "infra" / "aml"
ENVIRONMENT: Final = "ahclassifier_training"
COMPONENT: Final = "ahclassifier_fit"
PIPELINE: Final = "ahclassifier_training"
CONTENT: Final = "content"
"""Tag with a digest over everything that an asset is made of."""
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class PublishedAsset(Frozen):
    """What is in the workspace."""

    kind: str
    name: str
    version: str
    new: bool
    link: str


class AmlPublication:
    """Publishes the training code to the platform's workspace. A version is for good."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def publish(self, version: str, image: str) -> tuple[PublishedAsset, ...]:
        """See that environment, component and pipeline of this version are there, made of this image.

        Args:
            version: Of the build: up to 30 letters, digits, `.`, `-` and `_`.
            image: `sha256:...`, in the platform's registry under `training`, or a whole `REGISTRY/NAME@sha256:...`.

        Raises:
            ConfigurationError: The version exists with other content; or a wrong version or image.
            NotProvisioned: There is no workspace.
        """
        platform = platform_resources(self._settings)
        if not VERSION.fullmatch(version):
            raise ConfigurationError(
                f"`{version}` is no version for Azure ML: it takes up to 30 letters, digits, `.`, `-` and `_`."
            )
        return _Publishing(platform, version).all(_by_digest(image, platform))


def _by_digest(image: str, platform: PlatformResources) -> str:
    name, _, digest = image.rpartition("@")
    if not DIGEST.fullmatch(digest):
        raise ConfigurationError(
            f"The image `{image}` is not named by its digest, so that it may change under a published version.",
            next_step="Give `image=sha256:...`: `ahc run images -p image=training` tells it.",
        )
    return f"{name or f'{platform.registry_login_server}/training'}@{digest}"


class _Publishing:
    def __init__(self, platform: PlatformResources, version: str) -> None:
        self._platform = platform
        self._version = version

    @property
    def _client(self) -> "MLClient":
        return ml_client(self._platform)

    def all(self, image: str) -> tuple[PublishedAsset, ...]:
        from azure.ai.ml import load_component
        from azure.ai.ml.entities import Environment

        def environment(tags: dict[str, str]) -> Any:
            about = "Everything that a training needs."
            return Environment(name=ENVIRONMENT, version=self._version, image=image, description=about, tags=tags)

        def component(tags: dict[str, str]) -> Any:
            return load_component(
                DEFINITIONS / "fit.yaml",
                params_override=[
                    {"version": self._version},
                    {"tags": tags},
                    {"environment": f"azureml:{ENVIRONMENT}:{self._version}"},
                ],
            )

        def pipeline(tags: dict[str, str]) -> Any:
            return load_component(
                DEFINITIONS / "training.yaml",
                params_override=[
                    {"version": self._version},
                    {"tags": tags},
                    {"jobs.fit.component": f"azureml:{COMPONENT}:{self._version}"},
                ],
            )

        fit, training = (_text(DEFINITIONS / name) for name in ("fit.yaml", "training.yaml"))
        client = self._client
        return (
            self._ensure("environment", client.environments, ENVIRONMENT, _digest(image), environment),
            self._ensure("component", client.components, COMPONENT, _digest(image, fit), component),
            self._ensure("pipeline", client.components, PIPELINE, _digest(image, fit, training), pipeline),
        )

    def _ensure(
        self, kind: str, assets: Any, name: str, content: str, make: "Callable[[dict[str, str]], Any]"
    ) -> PublishedAsset:
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        with azure_errors(f"publishing the {kind} {name}:{self._version}"):
            asset = if_present(lambda: assets.get(name, self._version))
            new = asset is None
            if asset is None:
                try:
                    asset = assets.create_or_update(make({CONTENT: content}))
                except ResourceExistsError:
                    # Somebody was first.
                    asset = assets.get(name, self._version)
                except ResourceNotFoundError as error:
                    workspace = self._platform.workspace
                    raise NotProvisioned(f"The Azure ML workspace `{workspace}` is not there.") from error
        if (asset.tags or {}).get(CONTENT) != content:
            raise ConfigurationError(
                f"The {kind} {name}:{self._version} is published already, with another image or definition.",
                next_step="Publish under a new version: that of the build which made this image.",
            )
        plural = "environments" if kind == "environment" else "components"
        link = f"{STUDIO}/{plural}/{name}/{self._version}?wsid={workspace_id(self._platform)}"
        return PublishedAsset(kind=kind, name=name, version=self._version, new=new, link=link)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
