"""A flow run that follows a training in Azure ML, as a process: `python -m tests.support.azure.followed_flow`."""

from infra.azure.machine_learning import trainer
from infra.azure.machine_learning.trainer import AmlTrainer
from infra.settings import get_settings
from infra.training import TrainingUpdate
from tasks.framework.pipeline import pipeline
from tests.support.azure.aml_workspace import JOB, described

trainer.POLL_SECONDS = 0.1  # type: ignore[misc]


@pipeline("following", "following")
def following() -> None:
    def see(update: TrainingUpdate) -> None:
        print(update.sentence, flush=True)

    AmlTrainer(described(), get_settings()).train(JOB, see)


if __name__ == "__main__":
    following()
