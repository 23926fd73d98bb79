"""How this process signs in to Azure, by the place where it runs."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential


@lru_cache(maxsize=1)
def credential() -> "TokenCredential":
    """One credential for all clients of this process."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()
