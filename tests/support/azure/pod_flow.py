"""Data validation and training as a pod runs them: `python -m tests.support.azure.pod_flow SOURCE MIN_ACCURACY`."""

import json
import sys

from deployments.cli import in_process
from infra.settings import get_settings

if __name__ == "__main__":
    in_process.connect(get_settings())

from flows.data_validation import data_validation
from flows.training import training
from model.data.manifest import SplitConfig
from model.evaluation.verdict import GateConfig
from model.validation.report import ValidationConfig
from tasks.framework.pipeline import pipeline
from tasks.lifecycle_summary import Trained, summarise
from tasks.training.data import DataRequest
from tests.support.training_case import short_training


@pipeline("pod", "pod", keep_result=True)
def pod(source: str, seed: int) -> Trained:
    request = DataRequest(source=source, name="colours", split=SplitConfig(test=0.2, validation=0.2))
    validated = data_validation(request, ValidationConfig())
    trained = training(validated.data, short_training(epochs=1), GateConfig(seed=seed))
    summarise(validated, trained, [])
    return trained


if __name__ == "__main__":
    result = pod(sys.argv[1], int(sys.argv[2]))
    print(json.dumps(result.model_dump(mode="json")))
