"""The MLflow UI as one process on a socket that is already bound: `python -m infra.local.platform.mlflow_server FD`.

`infra.local.platform.platform` starts it at the first connection: who never looks at MLflow never pays for it, and the
connection that came first waits in the socket's queue until it is answered.
"""

import os
import socket
import sys

from infra.settings import Settings, get_settings


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """What `mlflow server` would set for its own application, plus what keeps it to itself."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": settings.mlflow_store,
        "_MLFLOW_SERVER_REGISTRY_STORE": settings.mlflow_store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(settings.path("mlflow") / "artifacts"),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def serve(descriptor: int) -> None:
    os.environ.update(mlflow_environment(get_settings()))
    import uvicorn
    from mlflow.server.fastapi_app import app

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
