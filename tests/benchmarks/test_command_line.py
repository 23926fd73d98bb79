"""What `ahc --help` costs, beside an import that every client of HTTP pays."""

import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest

from infra.settings import PROJECT

pytestmark = pytest.mark.benchmark
TURNS = 5
TARGET = 2.0
HELP = "from deployments.cli.main import run; run(['--help'])"


def _processor_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_about_as_much_as_an_import(record_property: Callable[[str, object], None]) -> None:
    pairs = [(_processor_seconds(HELP), _processor_seconds("import httpx")) for _ in range(TURNS)]
    ratio = statistics.median(ours / other for ours, other in pairs)
    record_property("help_over_import_httpx", round(ratio, 2))
    print(f"ahc --help: {ratio:.2f} x `import httpx` (limit {TARGET})")
    assert ratio <= TARGET
