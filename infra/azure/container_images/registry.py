"""The container registry's own API: which images there are, and deleting one.

The control plane knows no images. The registry answers to the distribution API of the Open Container Initiative and to
`/acr/v1`, with tokens that it exchanges for this process's identity
(https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md).
"""

import re
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx

from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors
from infra.errors import AccessDenied, ConfigurationError, PlatformError, ServiceUnavailable
from model.values import Frozen

SCOPE: Final = "https://containerregistry.azure.net/.default"
TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
SECONDS: Final = 20.0
PAGE: Final = 100


class Manifest(Frozen):
    """One image of a repository."""

    repository: str
    digest: str
    tags: tuple[str, ...] = ()
    updated: datetime

    @property
    def label(self) -> str:
        return f"{self.repository}@{self.digest[:19]}" + (f" ({', '.join(self.tags)})" if self.tags else "")


class ImageRegistry:
    """A registry, by its login server; a context manager.

    Every call raises AccessDenied where this identity may not, and ServiceUnavailable where the registry is busy.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._client = httpx.Client(base_url=f"https://{server}", timeout=SECONDS)
        self._refresh = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._client.close()

    def digest(self, repository: str, reference: str) -> str | None:
        """Of what a tag or digest stands for; None where the registry has no such image."""
        answer = self._ask("HEAD", f"/v2/{repository}/manifests/{reference}", repository, "pull")
        return answer.headers.get("Docker-Content-Digest", "") if answer.is_success else None

    def manifests(self, repository: str) -> list[Manifest]:
        """All images of a repository; none where there is no such repository."""
        manifests: list[Manifest] = []
        last = ""
        while True:
            page = {"n": str(PAGE), **({"last": last} if last else {})}
            answer = self._ask("GET", f"/acr/v1/{repository}/_manifests", repository, "metadata_read", params=page)
            rows = answer.json().get("manifests") or [] if answer.is_success else []
            manifests += [_manifest(repository, row) for row in rows]
            if len(rows) < PAGE:
                return manifests
            last = manifests[-1].digest

    def parts(self, manifest: Manifest) -> tuple[str, ...]:
        """Digests of the images of which this one is a list, one for each kind of processor; none of a plain image."""
        path = f"/v2/{manifest.repository}/manifests/{manifest.digest}"
        answer = self._ask("GET", path, manifest.repository, "pull")
        rows = answer.json().get("manifests") or [] if answer.is_success else []
        return tuple(str(row["digest"]) for row in rows)

    def delete(self, manifest: Manifest) -> None:
        """Delete an image with its tags; one that is gone is fine."""
        self._ask("DELETE", f"/v2/{manifest.repository}/manifests/{manifest.digest}", manifest.repository, "delete")

    def _ask(self, method: str, path: str, repository: str, action: str, **options: Any) -> httpx.Response:
        token = self._token(repository, action)
        headers = {"Authorization": f"Bearer {token}", "Accept": ", ".join((*TYPES, "application/json"))}
        answer = self._send(method, path, headers=headers, **options)
        if answer.is_success or answer.status_code == httpx.codes.NOT_FOUND:
            return answer
        raise self._refused(answer, f"{method} {path}")

    def _token(self, repository: str, action: str) -> str:
        service = {"service": self._server}
        if not self._refresh:
            with azure_errors(f"signing in to {self._server}"):
                identity = credential().get_token(SCOPE).token
            self._refresh = self._exchange(
                "exchange", {"grant_type": "access_token", "access_token": identity, **service}, "refresh_token"
            )
        request = {"scope": f"repository:{repository}:{action}", "refresh_token": self._refresh}
        return self._exchange("token", {"grant_type": "refresh_token", **request, **service}, "access_token")

    def _exchange(self, path: str, form: dict[str, str], field: str) -> str:
        answer = self._send("POST", f"/oauth2/{path}", data=form)
        if not answer.is_success:
            raise self._refused(answer, "signing in")
        return str(answer.json()[field])

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise ServiceUnavailable(f"The registry {self._server} does not answer: {error}") from error

    def _refused(self, answer: httpx.Response, doing: str) -> PlatformError:
        status = answer.status_code
        text = f"The registry {self._server} answered {status} to {doing}: {answer.text[:300]}"
        if status in {401, 403}:
            role = "AcrDelete" if doing.startswith("DELETE") else "AcrPull"
            return AccessDenied(text, next_step=f"Assign this identity the role `{role}` on the registry.")
        if status == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            return ServiceUnavailable(text)
        return PlatformError(text)


def _manifest(repository: str, row: dict[str, Any]) -> Manifest:
    return Manifest(
        repository=repository,
        digest=row["digest"],
        tags=tuple(row.get("tags") or ()),
        updated=datetime.fromisoformat(row["lastUpdateTime"]),
    )


def pinned_image(registry: str, image: str) -> str:
    """`REGISTRY/REPOSITORY@sha256:...` of an image: what runs tomorrow is what was tested today.

    Args:
        registry: Login server, `NAME.azurecr.io`.
        image: `REPOSITORY:TAG` or `REPOSITORY@sha256:...`.

    Raises:
        ConfigurationError: The registry has no such image.
        AccessDenied: This identity may not pull there.
        ServiceUnavailable: The registry does not answer.
    """
    repository, reference = re.split("[@:]", image, maxsplit=1)
    with ImageRegistry(registry) as images:
        digest = images.digest(repository, reference)
    if digest is None:
        raise ConfigurationError(
            f"There is no image {registry}/{image}.",
            next_step="Build it with `ahc run images -p image=scoring`, or correct `azure.image` in the environment "
            "file.",
        )
    return f"{registry}/{repository}@{digest}"
