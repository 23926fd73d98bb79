"""What a scoring container is told, as environment variables that the adapters write and the container reads."""

import os
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field, SecretStr, ValidationError

from infra.errors import ConfigurationError
from model.values import Frozen

PREFIX: Final = "AHC_CONTAINER_"


class ContainerConfig(Frozen):
    """One version of a model in one scoring container. Keys and certificate aren't in it but in the Key Vault."""

    environment: str = Field(description="The release target, which names the keys in the vault.")
    model_name: str
    model_version: int
    model_digest: str = Field(description="sha256 over the bundle; it must be that of the bytes.")
    bundle_url: str = Field(description="Where `BlobFolders` published the bundle.")
    key_vault_url: str
    identity_client_id: str = Field(description="The user-assigned identity to sign in with.")
    records_url: str = Field(default="", description="Blob container for sampled scoring records; none if empty.")
    sample_rate: float = Field(default=0.0, ge=0, le=1, description="Share of the scored requests that is recorded.")
    sample_images: int = Field(default=0, ge=0, description="So many of the newest recorded images are kept.")
    scoring_threads: int = Field(default=0, ge=0, description="Threads that score; 0 means one a core.")
    port: int = Field(default=8080, ge=1, le=65535)
    certificate: str = Field(
        default="", description="Name of the vault's secret with certificate and key (PEM); plain HTTP if empty."
    )
    correlation_id: str = Field(default="", description="Ties spans and records to the run that released the version.")
    telemetry: SecretStr = Field(
        default=SecretStr(""), description="Connection string of Application Insights; no telemetry if empty."
    )

    def variables(self) -> dict[str, str]:
        """As environment variables of the container."""
        values = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {PREFIX + name.upper(): value for name, value in values.items() if value}

    @classmethod
    def from_variables(cls, variables: Mapping[str, str] = os.environ) -> "ContainerConfig":
        """Read what `variables` wrote.

        Raises:
            ConfigurationError: Names each variable that is missing or wrong.
        """
        values = {name: value for name in cls.model_fields if (value := variables.get(PREFIX + name.upper()))}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            wrong = "; ".join(f"{PREFIX}{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
            raise ConfigurationError(f"Wrong variables of the scoring container: {wrong}.") from error


SAFE: Final = frozenset(
    PREFIX + name.upper() for name, field in ContainerConfig.model_fields.items() if field.annotation is not SecretStr
)
"""Variables that may be read by whoever may read the container group; all others are secure values."""


def _plain(value: Any) -> str:
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)
