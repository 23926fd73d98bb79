"""The stage `train` as a flow run has it, as a process: `python -m tests.support.azure.trained_flow DATA`."""

import json
import sys
from pathlib import Path

from deployments.cli import in_process
from infra.azure.machine_learning import trainer
from infra.settings import get_settings

if __name__ == "__main__":
    in_process.connect(get_settings())

from model.data.manifest import DataVersion
from tasks.framework.pipeline import pipeline
from tasks.training.train import Training, train
from tests.support.training_case import short_training

trainer.POLL_SECONDS = 0.3  # type: ignore[misc]


@pipeline("trained", "trained", keep_result=True)
def trained(data: DataVersion) -> Training:
    return train(data, short_training(head_epochs=1, epochs=2))


if __name__ == "__main__":
    result = trained(DataVersion.model_validate_json(Path(sys.argv[1]).read_text()))
    print(json.dumps(result.model_dump(mode="json")))
