"""The one place where settings are read: `AHC_` environment variables, each described here and listed in the docs."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parents[1]

Place = Literal["local", "azure"]


class Settings(BaseSettings):
    """Settings of the platform on this machine."""

    model_config = SettingsConfigDict(env_prefix="AHC_", frozen=True, extra="forbid")

    home: Path = Field(
        default=PROJECT / ".ahc",
        description="Where all state lives: server and MLflow databases, results, data, checkpoints, bundles, logs.",
    )
    host: str = Field(default="127.0.0.1", description="Address that everything the platform starts listens on.")
    prefect_port: int = Field(
        default=4200, ge=1, le=65535, description="Port of the Prefect server that `ahc up` starts."
    )
    mlflow_port: int = Field(
        default=5000, ge=1, le=65535, description="Port of the MLflow UI, which starts on request."
    )
    endpoint_base_port: int = Field(
        default=8080,
        ge=1,
        le=65000,
        description="Endpoints listen from this port on, by the `port_offset` of their environment file.",
    )
    environments: Path = Field(
        default=PROJECT / "deployments" / "environments", description="Folder of the environment files."
    )
    trainer: str = Field(default="local", description="Where networks are fitted: a file of AHC_TRAINERS.")
    trainers: Path = Field(default=PROJECT / "deployments" / "trainers", description="Folder of the trainer files.")
    devops: Path = Field(
        default=PROJECT / "deployments" / "devops.yaml", description="What a project of Azure DevOps is to have."
    )
    backend: Place = Field(
        default="local",
        description="Where registry, data, secrets and endpoints live: on this machine, or in an Azure subscription.",
    )
    azure_subscription_id: str | None = Field(default=None, description="The Azure subscription of the platform.")
    azure_prefix: str = Field(
        default="ahc",
        pattern=r"^[a-z][a-z0-9]{1,9}$",
        description="Leads the names of all Azure resources; `rg-PREFIX-platform` is the platform's resource group.",
    )
    azure_parameters: Path = Field(
        default=PROJECT / "infra" / "arm" / "parameters",
        description="Folder of the ARM parameter files: `platform.json`, and one for each environment on Azure.",
    )
    mlflow_tracking_uri: str | None = Field(
        default=None, description="An MLflow server for experiments, in place of the Azure ML workspace's own."
    )
    azure_machine_identity: bool = Field(
        default=False,
        description="Whether this is a virtual machine with a managed identity to sign in with; containers say so by "
        "themselves.",
    )
    correlation_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$",
        description="Ties spans, runs, models and requests to what started them, such as a pipeline's build id; the id "
        "of the root flow run where it is missing.",
    )
    workers: int = Field(default=0, ge=0, description="Processes that read images; 0 means one a core.")
    log_level: str = Field(default="INFO", description="Level of the platform's own log lines.")

    @property
    def prefect_api_url(self) -> str:
        return f"http://{self.host}:{self.prefect_port}/api"

    @property
    def prefect_ui_url(self) -> str:
        return f"http://{self.host}:{self.prefect_port}/v2"

    @property
    def mlflow_url(self) -> str:
        return f"http://{self.host}:{self.mlflow_port}"

    @property
    def mlflow_store(self) -> str:
        return f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    def path(self, *parts: str) -> Path:
        """A folder under `home`, created."""
        folder = self.home.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: Names every setting that is wrong.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"AHC_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"Wrong settings: {wrong}.") from error
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})


AZURE_RESULTS = "ahc-azure-results/platform"
