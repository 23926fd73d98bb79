"""The image classifier itself: data, network, training, evaluation, bundle and scoring service.

Pure: no Prefect, no Azure, no settings from the environment. What runs it where is decided in `tasks` and `flows`.
"""

import os

# ONNX Runtime reports to Microsoft by default, over the network, from version 1.32 on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
