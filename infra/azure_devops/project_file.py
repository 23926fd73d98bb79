"""`deployments/devops.yaml`: what a project of Azure DevOps is to have."""

from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from infra.config.gates import Gates
from infra.config.yaml_files import read_yaml
from model.values import Frozen

PREFIX: Final = "ahc-"
"""Leads the names of the Azure DevOps environments; the rest is the name of the environment file, or `platform`."""
PLATFORM: Final = "platform"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Group(Frozen):
    """A variable group: names and values that are no secrets, or names of secrets of the platform's Key Vault."""

    variables: dict[str, str] = Field(default_factory=dict)
    secrets: tuple[str, ...] = Field(default=(), description="Names in the platform's Key Vault.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.secrets) == bool(self.variables):
            raise ValueError("a group has either `variables` or `secrets`")
        return self


class Pipeline(Frozen):
    """One pipeline."""

    file: str = Field(description="Its YAML, from the root of the repository.")
    environments: tuple[str, ...] = Field(
        default=(), description="Environments that it may use: `platform`, or names of environment files."
    )
    webhook: bool = Field(default=False, description="Whether it starts by the webhook.")
    validates: bool = Field(default=False, description="Whether a pull request to `branch` needs it to succeed.")


class ProjectFile(Frozen):
    """The whole file."""

    organisation: str | None = Field(
        default=None, description="Such as https://dev.azure.com/NAME; without it, nothing is told to Azure DevOps."
    )
    project: str = Field(min_length=1)
    repository: str = Field(min_length=1, description="In Azure Repos, of the same project.")
    branch: str = Field(default="main", description="What is built and deployed.")
    connection: str = Field(
        default="ahc-azure", description="Service connection to the subscription, without a secret."
    )
    webhook: str = Field(
        default="ahc-model-registered",
        pattern=r"^[-_A-Za-z0-9]+$",
        description="Incoming webhook, and the service connection that lets pipelines start by it.",
    )
    approvers: tuple[str, ...] = Field(
        min_length=1, description="Who approves where an environment file names nobody: users by mail, or groups."
    )
    mirror: str | None = Field(
        default=None,
        description="The identity as which the platform carries a decision of Prefect over; it is an approver too.",
    )
    pool: str | None = Field(default=None, description="Agent pool of machines of your own; Microsoft's without it.")
    platform: Gates = Field(default=Gates(approval=True), description="Gates of changes of the shared infrastructure.")
    groups: dict[str, Group] = Field(default_factory=dict)
    pipelines: dict[str, Pipeline]

    @field_validator("organisation")
    @classmethod
    def _address(cls, organisation: str | None) -> str | None:
        if organisation is None:
            return None
        parts = urlsplit(organisation)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if not secure or not parts.hostname or not parts.path.strip("/"):
            raise ValueError("an organisation is like https://dev.azure.com/NAME")
        return organisation.rstrip("/")


def read_project_file(path: Path, **changes: str | None) -> ProjectFile:
    """The file, with those changes that have a value; raises as `read_yaml`."""
    return read_yaml(path, ProjectFile, **changes)
