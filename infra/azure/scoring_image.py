"""The scoring image of an environment, by the digest that its tag has now."""

from typing import Final

import httpx

from infra.azure.credentials import credential
from infra.azure.failures import azure_errors
from infra.errors import AccessDenied, ConfigurationError, PlatformError, ServiceUnavailable

SCOPE: Final = "https://containerregistry.azure.net/.default"
MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ROLE: Final = "AcrPull"
SECONDS: Final = 20.0


def pinned_image(registry: str, image: str) -> str:
    """`REGISTRY/REPOSITORY@sha256:...` of an image: what runs tomorrow is what was tested today.

    A tag is looked up in the registry (the OCI distribution API, with a token for this process's identity); what
    names a digest is taken at its word.

    Args:
        registry: Login server, `NAME.azurecr.io`.
        image: `REPOSITORY:TAG` or `REPOSITORY@sha256:...`.

    Raises:
        ConfigurationError: The registry has no such image.
        AccessDenied: This identity may not pull there.
        ServiceUnavailable: The registry does not answer.
    """
    if "@" in image:
        return f"{registry}/{image}"
    repository, _, tag = image.partition(":")
    with httpx.Client(base_url=f"https://{registry}", timeout=SECONDS) as client:
        answer = _ask(
            client,
            "HEAD",
            f"/v2/{repository}/manifests/{tag}",
            f"{registry}/{image}",
            headers={"Authorization": f"Bearer {_pull_token(client, repository)}", "Accept": ", ".join(MANIFESTS)},
        )
    return f"{registry}/{repository}@{answer.headers['Docker-Content-Digest']}"


def _pull_token(client: httpx.Client, repository: str) -> str:
    """As https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md describes it."""
    service = client.base_url.host
    with azure_errors(f"signing in to {service}"):
        identity = credential().get_token(SCOPE).token
    exchanged = _ask(
        client,
        "POST",
        "/oauth2/exchange",
        service,
        data={"grant_type": "access_token", "service": service, "access_token": identity},
    )
    token = _ask(
        client,
        "POST",
        "/oauth2/token",
        service,
        data={
            "grant_type": "refresh_token",
            "service": service,
            "scope": f"repository:{repository}:pull",
            "refresh_token": exchanged.json()["refresh_token"],
        },
    )
    return str(token.json()["access_token"])


def _ask(
    client: httpx.Client,
    method: str,
    path: str,
    wanted: str,
    *,
    data: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    try:
        answer = client.request(method, path, data=data, headers=headers)
    except httpx.TransportError as error:
        raise ServiceUnavailable(f"The connection broke while resolving {wanted}: {error}") from error
    if answer.is_success:
        return answer
    raise _translated(answer, wanted)


def _translated(answer: httpx.Response, wanted: str) -> PlatformError:
    status = answer.status_code
    said = f"The registry answered {status} while resolving {wanted}: {answer.text or answer.reason_phrase}"
    if status in {401, 403}:
        return AccessDenied(said, next_step=f"Assign the role `{ROLE}` on the registry to this identity.")
    if status == httpx.codes.NOT_FOUND:
        return ConfigurationError(
            f"There is no image {wanted}.",
            next_step="Build and push the scoring image, or correct `azure.image` in the environment file.",
        )
    if status == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
        return ServiceUnavailable(said)
    return PlatformError(said)
