"""The incoming webhook: how the platform starts the CD pipeline for a new version."""

import hashlib
import hmac
import json
from typing import Final

import httpx
from pydantic import SecretStr

from infra.azure.access.resources import platform_resources
from infra.azure.storage.key_vault import ensure_secret, read_secret
from infra.azure_devops.client import refusal
from infra.azure_devops.connections import SIGNATURE
from infra.azure_devops.project_file import ProjectFile
from infra.errors import ServiceUnavailable
from infra.ports import LiveModel
from infra.settings import Settings

SECRET: Final = "devops-webhook-secret"  # noqa: S105 - the name of a secret
"""In the platform's Key Vault; `ahc devops init` makes it."""
VERSION: Final = "6.0-preview"
REGISTERED: Final = "Microsoft.MachineLearningServices.ModelRegistered"
"""The kind of event, as Event Grid's; pipelines filter by it."""


def read_webhook_secret(settings: Settings) -> SecretStr:
    """What requests to the webhook are signed with; raises as `SecretStore.get`."""
    return read_secret(platform_resources(settings).key_vault_url, SECRET)


def ensure_webhook_secret(settings: Settings) -> SecretStr:
    """The same; it is made where it isn't there."""
    return ensure_secret(platform_resources(settings).key_vault_url, SECRET)


def announce(file: ProjectFile, model: LiveModel, secret: SecretStr) -> None:
    """Tell Azure DevOps of a version, as Event Grid does; each pipeline with this webhook among its resources starts.

    Args:
        file: Whose webhook; with an organisation.
        model: Which version.
        secret: The request is signed with it (HMAC-SHA1, the only kind that Azure DevOps checks).

    Raises:
        ServiceUnavailable: It can't be told now.
        DevOpsRefused: There is no such webhook, or its secret is another.
    """
    url = f"{file.organisation}/_apis/public/distributedtask/webhooks/{file.webhook}"
    event = {
        "specversion": "1.0",
        "type": REGISTERED,
        "source": "ahclassifier",
        "id": f"{model.name}-v{model.version}",
        "data": {"ModelName": model.name, "ModelVersion": str(model.version)},
    }
    body = json.dumps(event).encode()
    signature = hmac.new(secret.get_secret_value().encode(), body, hashlib.sha1).hexdigest()
    headers = {"Content-Type": "application/json", SIGNATURE: f"sha1={signature}"}
    try:
        answer = httpx.post(url, params={"api-version": VERSION}, content=body, headers=headers, timeout=30)
    except httpx.TransportError as error:
        raise ServiceUnavailable(f"POST {url}: {error or type(error).__name__}.") from error
    if not answer.is_success:
        raise refusal("POST", url, answer)
