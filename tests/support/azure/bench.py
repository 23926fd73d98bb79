"""The Azure bench: where it is, and a small platform on it for the tests of the adapters."""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.settings import PROJECT, Settings
from tests.support.azure import kept_azurite

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
BENCH = Path(os.environ.get("AHC_AZURE_BENCH", PROJECT.parent / "shared" / "azure-bench"))
"""The folder that holds the package `azure_bench`; see docs/azure.md."""
IDENTITY = {"AZURE_TENANT_ID": SUBSCRIPTION, "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "secret"}
"""The service principal that the bench lets in."""


def missing() -> str | None:
    """Why the bench can't be used here; None where it can."""
    if not (BENCH / "azure_bench").is_dir():
        return f"the Azure bench is not at {BENCH}; to run these tests: AHC_AZURE_BENCH=DIR pytest -m azure"
    wanted = ("trustme", "jsonschema", "azure.ai.ml")
    absent = [name for name in wanted if not _installed(name)]
    return (
        f"{', '.join(absent)} not installed; to run these tests: make install, then pytest -m azure" if absent else None
    )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def start() -> Iterator[Any]:
    """A `BenchProcess`; its Azurites are kept from test to test, where nobody names another with AZURITE_BIN."""
    sys.path.insert(0, str(BENCH))
    from azure_bench.client import BenchProcess

    with tempfile.TemporaryDirectory(prefix="azurite-") as folder, pytest.MonkeyPatch.context() as environment:
        if "AZURITE_BIN" not in os.environ:
            environment.setenv("AZURITE_BIN", str(kept_azurite.launcher(Path(folder), BENCH)))
        try:
            with BenchProcess() as process:
                yield process
        finally:
            kept_azurite.end(Path(folder))


def calls(bench: Any, method: str, url: str = "") -> list[dict[str, Any]]:
    """The requests so far by this method to a URL with this part.

    The bench itself takes a `method` for that of the question about its calls.
    """
    return [call for call in bench.calls(url=url) if call["method"] == method]


def azure_settings(home: Path, **changes: Any) -> Settings:
    """Settings of a process that works on the bench."""
    return Settings(home=home, backend="azure", azure_subscription_id=SUBSCRIPTION, **changes)


def live_settings(home: Path) -> Settings:
    """Settings of the subscription that the environment names; skips where it names none."""
    settings = Settings(backend="azure").model_copy(update={"home": home})
    if not settings.azure_subscription_id:
        pytest.skip("--azure live needs AHC_AZURE_SUBSCRIPTION_ID of a provisioned platform; see docs/azure.md")
    return settings
