"""Which code runs."""

import os
import subprocess
from functools import lru_cache

from infra.settings import PROJECT


@lru_cache(maxsize=1)
def revision() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; `unknown` outside a git checkout.

    An image holds no checkout: what it was built from is in its variable AHC_REVISION.
    """
    if built_from := os.environ.get("AHC_REVISION"):
        return built_from
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
