"""`ahc version`."""

import json
from typing import Annotated

import typer

from infra.version import platform, revision
from infra.version import version as platform_version


def version(as_json: Annotated[bool, typer.Option("--json", help="Print both as JSON.")] = False) -> None:
    """Tell the version of the platform, from its git tags, and the commit that runs; `ahc --version` does too."""
    if as_json:
        print(json.dumps({"version": platform_version(), "revision": revision()}))
    else:
        print(f"ahclassifier {platform()}")
