"""The whole way: from labelled photos to live endpoints."""

from flows.data_validation import DEFAULT_DATA, DEFAULT_VALIDATION, data_validation
from flows.release import release
from flows.training import DEFAULT_GATES, DEFAULT_TRAINING
from flows.training import training as train_and_judge
from model.config import TrainingConfig
from model.evaluation.verdict import GateConfig
from model.validation.report import ValidationConfig
from tasks.framework.pipeline import completed_as, pipeline, rename_run
from tasks.lifecycle_summary import Summary, summarise
from tasks.operations.infrastructure import check_infrastructure
from tasks.release.targets import check_targets
from tasks.training.champion import find_champion
from tasks.training.data import DataRequest, name_of


@pipeline("lifecycle", "lifecycle {data.source}", keep_result=True)
def lifecycle(
    data: DataRequest = DEFAULT_DATA,
    training: TrainingConfig = DEFAULT_TRAINING,
    validation: ValidationConfig = DEFAULT_VALIDATION,
    gates: GateConfig = DEFAULT_GATES,
    release_to: tuple[str, ...] = ("test", "acceptance"),
) -> Summary:
    """Validate the data, train, compare with the champion, register, and release what is better, step by step.

    A model that is not promoted ends the run as `NotPromoted`, which is a success: the platform did its job.

    Args:
        data: Which images to learn from.
        training: Every hyperparameter.
        validation: What the data must look like.
        gates: What a model must show to be promoted.
        release_to: Environments in this order. The champion is what the last one runs.
    """
    check_infrastructure(release_to)
    check_targets(release_to)
    champion = find_champion(name_of(data), release_to)
    validated = data_validation(data, validation, champion.model)
    trained = train_and_judge(validated.data, training, gates, champion.model)
    version = trained.registration.model.version
    rename_run(f"lifecycle {validated.data.label} -> v{version}")
    if not trained.promoted:
        return completed_as("NotPromoted", trained.judgement.verdict.reason, summarise(validated, trained, []))
    live = [release(validated.data.name, version, environment) for environment in release_to]
    return summarise(validated, trained, live)
