"""Processes with an AHC_HOME of their own, as pods have it."""

import json
import os
import subprocess
import sys
from typing import Any

from infra.settings import PROJECT, Settings
from tests.conftest import settings_environment


def run_in_pod(settings: Settings, api_url: str, module: str, *arguments: object) -> dict[str, Any]:
    """Run a module to its end with these settings and this Prefect server; answers the JSON of its last line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AHC_"))}
    settings.home.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={
            **inherited,
            **settings_environment(settings),
            "PREFECT_API_URL": api_url,
            "PYTHONPATH": str(PROJECT),
        },
        cwd=settings.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
