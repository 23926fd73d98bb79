"""The one part of a training that needs a GPU, as a run of its own on a machine that has one."""

from infra.training import TrainingJob
from tasks.framework.pipeline import cancelled, pipeline
from tasks.training.train import fit_here


@pipeline("fit", "fit {job.label}")
def fit(job: TrainingJob) -> None:
    """Fit the network of this job; it is started by the training that needs it.

    Args:
        job: The data version, the configuration and the key under which the result is stored.
    """
    if not fit_here(job).finished:
        return cancelled("What it had learnt is kept.")
    return None
