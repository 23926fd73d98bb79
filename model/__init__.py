"""The image classifier itself: data, network, training, evaluation, bundle and scoring service.

Pure: no Prefect, no Azure, no settings. What runs it where is decided in `tasks` and `flows`.
"""

import os

# ONNX Runtime reports what it runs to its makers unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
