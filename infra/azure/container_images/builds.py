"""Images built by the platform's container registry itself (ACR tasks): no machine of ours needs a builder.

The official management library has no build operations any more, so that they are called here as they are published:
https://learn.microsoft.com/rest/api/containerregistry/registries/schedule-run
"""

from collections.abc import Callable
from typing import Any, Final

from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resource_manager import ask
from infra.azure.access.resources import PlatformResources, platform_resources
from infra.container_images import BuiltImage, ImageSource
from infra.errors import ImageBuildFailed, NotProvisioned, ServiceUnavailable
from infra.settings import Settings
from infra.waiting import polls

API_VERSION: Final = "2019-06-01-preview"
"""The only version of these operations that is widely served; it has been stable since."""
POLL_SECONDS: Final = 3.0
BUILD_SECONDS: Final = 3600
"""The registry ends a build after so long."""
LAST_LINES: Final = 20
UNDER_WAY: Final = frozenset({"Queued", "Started", "Running"})

Tell = Callable[[str], None]


class RegistryBuilds:
    """An ImageBuilder that lets the platform's registry build."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def _platform(self) -> PlatformResources:
        return platform_resources(self._settings)

    def build(self, source: ImageSource, tell: Tell) -> BuiltImage:
        from azure.core.exceptions import ResourceNotFoundError

        registry = self._platform.container_registry
        with azure_errors(f"building the image {source.name} in {registry}"):
            try:
                return self._build(source, tell)
            except ResourceNotFoundError as error:
                raise NotProvisioned(f"The container registry `{registry}` is not there: {error.message}") from error

    def _build(self, source: ImageSource, tell: Tell) -> BuiltImage:
        if digest := self._built_before(source, tell):
            return self._image(source, digest, built=False)
        run = self._schedule(source)
        tell(f"{self._platform.container_registry} builds {source.name} as run {run}.")
        result = self._follow(run, tell)
        if result["status"] != "Succeeded":
            lines = "\n".join(self._log(run)[-LAST_LINES:])
            raise ImageBuildFailed(
                f"The build {run} of the image {source.name} in {self._platform.container_registry} ended as "
                f"{result['status']}: {result.get('runErrorMessage', '')} Its last lines:\n{lines}"
            )
        digest = _digest(result, source)
        if digest is None:
            raise ServiceUnavailable(f"The build {run} succeeded, but doesn't tell the digest of its image.")
        return self._image(source, digest, built=True)

    def _built_before(self, source: ImageSource, tell: Tell) -> str | None:
        """The digest of the same sources, where they were built last; builds that are under way are waited for."""
        for run in [run for run in self._runs() if run["status"] in UNDER_WAY]:
            # Perhaps ours, of a run that was killed: a build doesn't tell what it builds until it ends.
            tell(f"Waiting for the build {run['runId']}, which is under way.")
            self._follow(run["runId"], lambda _: None)
        ended = [run for run in self._runs() if run["status"] == "Succeeded" and _builds(run, source.name)]
        newest = max(ended, key=lambda run: str(run["createTime"]), default=None)
        return _digest(newest, source) if newest else None

    def _image(self, source: ImageSource, digest: str, *, built: bool) -> BuiltImage:
        reference = f"{self._platform.registry_login_server}/{source.name}@{digest}"
        return BuiltImage(reference=reference, tags=source.tags, built=built)

    def _schedule(self, source: ImageSource) -> str:
        upload = self._ask("POST", "listBuildSourceUploadUrl")
        _upload(upload["uploadUrl"], source.archive())
        run = self._ask(
            "POST",
            "scheduleRun",
            {
                "type": "DockerBuildRequest",
                "sourceLocation": upload["relativePath"],
                "dockerFilePath": source.dockerfile,
                "imageNames": [f"{source.name}:{tag}" for tag in source.tags],
                "arguments": [{"name": name, "value": value} for name, value in source.arguments.items()],
                "platform": {"os": "Linux", "architecture": "amd64"},
                "isPushEnabled": True,
                "timeout": BUILD_SECONDS,
            },
        )
        return str(run["properties"]["runId"])

    def _follow(self, run: str, tell: Tell) -> dict[str, Any]:
        """The run, once it has ended; its log lines are told as they come."""
        count = 0
        for _ in polls(BUILD_SECONDS + 600, pause=POLL_SECONDS):
            properties: dict[str, Any] = self._ask("GET", f"runs/{run}")["properties"]
            lines = self._log(run)
            for line in lines[count:]:
                tell(line)
            count = max(count, len(lines))
            if properties["status"] not in UNDER_WAY:
                return properties
        raise ServiceUnavailable(f"The build {run} is still {properties['status']} long after its limit.")

    def _log(self, run: str) -> list[str]:
        """What the build has said so far; nothing where its log isn't there yet."""
        from azure.storage.blob import BlobClient

        link = self._ask("POST", f"runs/{run}/listLogSasUrl")["logLink"]
        with BlobClient.from_blob_url(link) as blob:
            text: bytes = if_present(lambda: blob.download_blob().readall()) or b""
        return text.decode(errors="replace").splitlines()

    def _runs(self) -> list[dict[str, Any]]:
        """The registry's latest runs."""
        return [item["properties"] for item in self._ask("GET", "runs")["value"]]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        platform = self._platform
        registry = platform.resource_id("Microsoft.ContainerRegistry/registries", platform.container_registry)
        return ask(method, registry, path, API_VERSION, body)


def _upload(url: str, content: bytes) -> None:
    from azure.storage.blob import BlobClient

    with BlobClient.from_blob_url(url) as blob:
        blob.upload_blob(content, overwrite=True)


def _builds(run: dict[str, Any], name: str) -> bool:
    return any(image["repository"] == name for image in run.get("outputImages") or [])


def _digest(run: dict[str, Any], source: ImageSource) -> str | None:
    name = (source.name, source.content_tag)
    images = (image for image in run.get("outputImages") or [] if (image["repository"], image["tag"]) == name)
    return next((str(image["digest"]) for image in images), None)
