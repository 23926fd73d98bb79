"""How a request to Azure DevOps says who asks."""

import os
from base64 import b64encode
from typing import Final

from pydantic import SecretStr

from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors

TOKEN_OF_A_PERSON: Final = "AZURE_DEVOPS_EXT_PAT"  # noqa: S105 - the name of a variable
"""A personal access token; the Azure CLI reads the same variable."""
TOKEN_OF_A_BUILD: Final = "SYSTEM_ACCESSTOKEN"  # noqa: S105
"""What a build may do; a pipeline hands it to a step by name."""
SCOPE: Final = "499b84ac-1321-427f-aa17-267ca6975798/.default"
"""Azure DevOps, among Entra's applications."""


def authorization() -> SecretStr:
    """The header `Authorization`: a personal access token, a build's token, or Azure's credential of this place.

    Raises:
        NoCredentials: There is none of them.
    """
    if token := os.environ.get(TOKEN_OF_A_PERSON):
        return SecretStr("Basic " + b64encode(f":{token}".encode()).decode())
    if token := os.environ.get(TOKEN_OF_A_BUILD):
        return SecretStr(f"Bearer {token}")
    with azure_errors("signing in to Azure DevOps"):
        return SecretStr(f"Bearer {credential().get_token(SCOPE).token}")
