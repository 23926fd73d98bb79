"""Environment files: the endpoint of each release target, its gates and its port."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from infra.config.gates import Gates
from infra.config.yaml_files import Described, load_described, read_described
from infra.settings import Place
from model.values import Frozen


class AzureTarget(Frozen):
    """How an environment's endpoint runs on Azure."""

    endpoint: Literal["container-instances", "app-service"] = Field(
        default="container-instances", description="What runs the scoring container."
    )
    cpu: float = Field(default=1, ge=0.5, le=4, description="Processor cores of one scoring container.")
    memory_gb: float = Field(default=2, ge=1, le=16, description="Memory of one scoring container, in 10^9 bytes.")
    image: str = Field(
        default="scoring:stable",
        pattern=r"^[a-z0-9][a-z0-9._/-]*(:[\w.-]+|@sha256:[0-9a-f]{64})$",
        description="The scoring image in the platform's registry, without the registry's name. "
        "It is resolved to its digest before it is deployed.",
    )
    private: bool = Field(
        default=False, description="In the virtual network's subnet, without a public address (container instances)."
    )
    certificate: str | None = Field(
        default=None, description="Name of the Key Vault secret with certificate and key (PEM) for TLS."
    )
    subscription_id: str | None = Field(
        default=None, description="Where this environment is in a subscription of its own."
    )
    model_registry: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$",
        description="Azure ML registry, in this environment's subscription or the platform's, to which a version is "
        "shared before it is deployed.",
    )


class Environment(Described):
    """One release target."""

    port_offset: int = Field(ge=0, le=100, description="Added to AHC_ENDPOINT_BASE_PORT.")
    scoring_threads: int = Field(default=0, ge=0, description="Threads that score; 0 means one a core.")
    sample_rate: float = Field(
        default=0.1, ge=0, le=1, description="Share of the scored requests whose record goes to the data lake."
    )
    sample_images: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="So many of the newest images of those records are kept, for `gates.shadow`. None by default, as "
        "photos may be personal: they lie as they were sent beside the records, up to 4 MiB each.",
    )
    backend: Place | None = Field(
        default=None, description="Where its endpoint and secrets are; as AHC_BACKEND says where this is missing."
    )
    azure: AzureTarget = Field(default_factory=AzureTarget)
    gates: Gates = Field(default_factory=Gates)

    @field_validator("gates")
    @classmethod
    def _images_to_replay(cls, gates: Gates, others: ValidationInfo) -> Gates:
        images, rate = others.data.get("sample_images"), others.data.get("sample_rate")
        if gates.shadow and images is not None and rate is not None and (images < gates.shadow.images or not rate):
            raise ValueError(
                f"`gates.shadow` replays {gates.shadow.images} images, which are kept with `sample_images: "
                f"{gates.shadow.images}` (it is {images}) and a `sample_rate` above 0 (it is {rate:g})"
            )
        return gates


KeyName = Literal["primary", "secondary", "retired", "announced"]


def endpoint_key(environment: str, which: KeyName = "primary") -> str:
    """The name of the secret that holds an environment's key.

    Primary and secondary are valid, so that they can be rotated; the retired one was, before the last rotation. The
    announced one is the primary that clients were told of last: until a rotation has ended, another one.
    """
    return f"{environment}-endpoint-key-{which}"


def environment_names(folder: Path) -> list[str]:
    """Names of the environments in the order in which a release passes them (by port_offset)."""
    environments = [read_described(path, Environment) for path in folder.glob("*.yaml")]
    return [item.name for item in sorted(environments, key=lambda item: item.port_offset)]


def load_environment(name: str, folder: Path) -> Environment:
    """Read `folder/name.yaml`.

    Raises:
        ConfigurationError: No such environment, or the file has an unknown key or a wrong value (all are named).
    """
    return load_described("environment", name, folder, Environment)
