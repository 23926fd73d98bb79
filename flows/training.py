"""From validated data to a judged, registered model version."""

from infra.ports import RegisteredModel
from model.config import TrainingConfig
from model.data.manifest import DataVersion
from model.evaluation.verdict import GateConfig
from tasks.framework.gate_results import show_verdict
from tasks.framework.pipeline import pipeline, rename_run
from tasks.lifecycle_summary import Trained
from tasks.training.bundle import seal_bundle
from tasks.training.champion import find_opponent
from tasks.training.judge import evaluate_and_judge, track_evaluation
from tasks.training.metrics_to_lake import publish_metrics
from tasks.training.register import register
from tasks.training.train import train

DEFAULT_TRAINING = TrainingConfig()
DEFAULT_GATES = GateConfig()


@pipeline("training", "training {data.name}@{data.version}")
def training(
    data: DataVersion,
    config: TrainingConfig = DEFAULT_TRAINING,
    gates: GateConfig = DEFAULT_GATES,
    champion: RegisteredModel | None = None,
) -> Trained:
    """Train, seal the bundle, judge it against the champion on identical images, register it with its verdict.

    Args:
        data: A validated data version.
        config: Every hyperparameter; of the same data, configuration and code only one training is made.
        gates: What a model must show.
        champion: The live model to beat; without one, absolute floors decide.
    """
    trained = train(data, config)
    sealed = seal_bundle(data, config, trained)
    opponent = find_opponent(champion, sealed.bundle)
    judgement = evaluate_and_judge(sealed.bundle, opponent.model, data, gates)
    track_evaluation(sealed.bundle, judgement, trained)
    registration = register(sealed.bundle, judgement, data, trained)
    publish_metrics(registration.model, judgement, data)
    show_verdict(registration.model, judgement.verdict)
    rename_run(f"training {data.label} -> v{registration.model.version}")
    return Trained(training=trained, sealed=sealed, judgement=judgement, registration=registration)
