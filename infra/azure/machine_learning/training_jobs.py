"""Azure ML jobs of the published training component, one for each attempt of a training."""

from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import PlatformResources
from infra.azure.machine_learning.registry import ml_client
from infra.azure.machine_learning.tracking import studio_link
from infra.config.trainers import AzureMlTarget
from infra.errors import NotProvisioned, ServiceUnavailable
from infra.settings import Settings
from infra.stores.mlflow_tracking import KEY
from infra.training import TrainingJob

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

SHARED_MEMORY: Final = "8g"
"""Processes that decode images hand them over in shared memory; Azure ML gives 2 GB by default."""
PUBLISH: Final = "Publish it: `ahc run publication -p version=BUILD -p image=DIGEST`."


class TrainingJobs:
    """The jobs in the platform's workspace. Attempt N of the training KEY is the job `KEY-N`."""

    def __init__(self, target: AzureMlTarget, platform: PlatformResources, settings: Settings) -> None:
        self._target = target
        self._platform = platform
        self._settings = settings

    @property
    def _client(self) -> "MLClient":
        return ml_client(self._platform)

    def link(self, name: str) -> str:
        """Where a person looks at a job."""
        return studio_link(self._platform, name)

    def attempts(self, key: str) -> int:
        """How many attempts of this training were submitted."""
        attempts = 0
        while self._is_there(f"{key}-{attempts + 1}"):
            attempts += 1
        return attempts

    def submit(self, name: str, job: TrainingJob, job_url: str) -> None:
        """Start an attempt; where it is there already, nothing happens.

        Raises:
            NotProvisioned: The component or the compute is not there.
        """
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        entity = self._entity(name, job, job_url)
        with azure_errors(f"submitting the job {name}"):
            try:
                self._client.jobs.create_or_update(entity)
            except ResourceExistsError:
                if not self._is_there(name):
                    raise
            except ResourceNotFoundError as error:
                raise NotProvisioned(f"The workspace `{self._platform.workspace}` refused {name}: {error}") from error

    def details(self, name: str) -> Any:
        """Status, log files, warnings and error of a job.

        Raises: ServiceUnavailable, and as `azure_errors` does.
        """
        # The history of runs hears of a job later than whoever submits it.
        unknown = ServiceUnavailable(f"Azure ML doesn't know the job {name} yet.")
        with azure_errors(f"reading the job {name}", unknown):
            # The SDK can only print logs (`jobs.stream`); this is what it asks for them.
            return self._client.jobs._runs_operations.get_run_details(name)  # noqa: SLF001

    def cancel(self, name: str) -> None:
        """Returns when Azure ML has taken note; the job ends a moment later."""
        with azure_errors(f"cancelling the job {name}"):
            self._client.jobs.begin_cancel(name)

    def _is_there(self, name: str) -> bool:
        with azure_errors(f"looking for the job {name}"):
            return if_present(lambda: self._client.jobs.get(name)) is not None

    def _entity(self, name: str, job: TrainingJob, job_url: str) -> Any:
        from azure.ai.ml import Input, PyTorchDistribution, command

        component, target = self._component(), self._target
        self._need_compute()
        processes = target.processes_per_node
        return command(
            name=name,
            display_name=job.label,
            experiment_name=job.data.name,
            description="A training of AHClassifier.",
            # The tracker's run has the same tag: one search finds both.
            tags={KEY: job.key, "component": f"{component.name}:{component.version}"},
            command=component.command,
            environment=component.environment,
            environment_variables=self._variables(),
            inputs={
                "job": job_url,
                "data": Input(type="uri_folder", path=_asset(job), mode="direct"),
            },
            compute=target.compute,
            instance_count=job.nodes,
            instance_type=target.instance_type,
            shm_size=SHARED_MEMORY,
            distribution=PyTorchDistribution(process_count_per_instance=processes)
            if job.nodes * processes > 1
            else None,
        )

    def _component(self) -> Any:
        name, version = self._target.component, self._target.version
        label = f"{name}:{version}" if version else name
        missing = NotProvisioned(
            f"The workspace `{self._platform.workspace}` has no component `{label}`.", next_step=PUBLISH
        )
        components = self._client.components
        with azure_errors(f"reading the component {label}", missing):
            if version:
                return components.get(name, version)
            newest = max(components.list(name), key=lambda item: item.creation_context.created_at, default=None)
            if newest is not None:
                return components.get(name, newest.version)
        raise missing

    def _need_compute(self) -> None:
        missing = NotProvisioned(
            f"The workspace `{self._platform.workspace}` has no compute `{self._target.compute}`.",
            next_step="Correct `azure_ml.compute` in the trainer file, or attach the cluster: `ahc run "
            "infrastructure -p mode=provision -p environment=platform`.",
        )
        with azure_errors(f"reading the compute {self._target.compute}", missing):
            self._client.compute.get(self._target.compute)

    def _variables(self) -> dict[str, str]:
        settings = self._settings
        variables = {
            "AHC_BACKEND": "azure",
            "AHC_AZURE_SUBSCRIPTION_ID": self._platform.subscription_id,
            "AHC_AZURE_PREFIX": settings.azure_prefix,
            "AHC_LOG_LEVEL": settings.log_level,
            "AHC_MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
            "AHC_CORRELATION_ID": settings.correlation_id,
            # Which of the identities of the compute.
            "AZURE_CLIENT_ID": self._platform.training_identity_client_id,
        }
        return {name: value for name, value in variables.items() if value}


def _asset(job: TrainingJob) -> str:
    return f"azureml:{job.data.name}:{job.data.version}"
