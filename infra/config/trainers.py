"""Trainer files: where networks are fitted."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from infra.config.yaml_files import Described, load_described
from model.values import Frozen


class KubernetesTarget(Frozen):
    """Runs of a Prefect deployment whose work pool starts Kubernetes jobs."""

    deployment: str = Field(pattern=r"^[^/]+/[^/]+$", description="`FLOW/NAME`; its flow takes a training job.")


class AzureMlTarget(Frozen):
    """Jobs of the platform's Azure ML workspace."""

    compute: str = Field(description="Name of a compute of the workspace: an attached cluster, or an AmlCompute one.")
    instance_type: str | None = Field(default=None, description="On an attached cluster: the kind of its node.")
    component: str = Field(
        default="ahclassifier_fit", description="The published component; its newest version where none is named."
    )
    version: str | None = Field(default=None, description="Its version: that of the build that published it.")
    processes_per_node: int = Field(default=1, ge=1, le=16, description="One for each GPU of a node.")


class TrainerFile(Described):
    """Where networks are fitted."""

    kind: Literal["process", "kubernetes", "azure-ml"] = Field(
        description="In the process of the flow run, or on which engine."
    )
    hourly_price: float | None = Field(
        default=None, gt=0, description="Of one node while it trains, for the cost that a run shows; in `currency`."
    )
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    kubernetes: KubernetesTarget | None = None
    azure_ml: AzureMlTarget | None = None

    @model_validator(mode="after")
    def _described(self) -> Self:
        for kind, section in (("kubernetes", self.kubernetes), ("azure-ml", self.azure_ml)):
            if (self.kind == kind) != (section is not None):
                key = kind.replace("-", "_")
                raise ValueError(f"`{key}` is needed with `kind: {kind}`, and has no meaning with another one")
        return self


def load_trainer(name: str, folder: Path) -> TrainerFile:
    """Read `folder/name.yaml`; raises as `load_described` does."""
    return load_described("trainer", name, folder, TrainerFile)
