"""A flow run that follows a training in Azure ML, for a process of its own: `python -m tests.azure.followed_flow`."""

from infra.azure import trainer
from infra.azure.trainer import AmlTrainer
from infra.ports import TrainingUpdate
from infra.settings import get_settings
from tasks.pipeline import pipeline
from tests.azure.aml_workspace import JOB, described

trainer.POLL_SECONDS = 0.1  # type: ignore[misc]


@pipeline("following", "following")
def following() -> None:
    def see(update: TrainingUpdate) -> None:
        print(update.text, flush=True)

    AmlTrainer(described(), get_settings()).train(JOB, see)


if __name__ == "__main__":
    following()
