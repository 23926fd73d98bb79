"""docs/benchmarks.md: validating a manifest of a million rows takes under a minute and two gigabytes."""

import json
import subprocess
import sys

import pytest

ROWS = 1_000_000

# In a process of its own: the peak of memory is the process's, and the tests' own must not count.
PROGRAM = """
import hashlib, json, resource, sys
import numpy as np
import pandas as pd
from model.validation.report import ValidationConfig, validate

rows = int(sys.argv[1])
random = np.random.default_rng(0)
labels = np.array([f"class {number:02}" for number in range(20)])
label = random.choice(labels, rows)
hashes = random.integers(1, 2**63, rows, dtype=np.uint64)
# One image in a hundred is a re-encoded copy of another one: three bits of its hash differ.
copies = random.choice(rows, rows // 100, replace=False)
flipped = np.uint64(1 << 1 | 1 << 30 | 1 << 59)
hashes[copies] = hashes[(copies + 1) % rows] ^ flipped
frame = pd.DataFrame(
    {
        "path": [f"{name}/image-{number:07}.jpg" for number, name in enumerate(label)],
        "label": pd.Categorical(label),
        "split": pd.Categorical(random.choice(["train", "validation", "test"], rows, p=[0.7, 0.15, 0.15])),
        # One row in a thousand is an exact copy.
        "sha256": [hashlib.sha256(b"%d" % (number - (number % 1000 == 1))).hexdigest() for number in range(rows)],
        "bytes": random.integers(10_000, 900_000, rows),
        "width": random.integers(200, 4000, rows),
        "height": random.integers(200, 4000, rows),
        "format": pd.Categorical(["JPEG"] * rows),
        "mode": pd.Categorical(["RGB"] * rows),
        "phash": [f"{value:016x}" for value in hashes.tolist()],
        "error": pd.Series([None] * rows, dtype="object"),
    }
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
report = validate(frame, ValidationConfig(), reference=frame.iloc[: rows // 2])
print(json.dumps({
    "seconds": report.seconds,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "peak_before_mib": before,
    "counts": {finding.check: finding.count for finding in report.findings},
}))
"""


@pytest.mark.benchmark
@pytest.mark.timeout(300)
def test_a_million_rows_are_validated_within_a_minute_and_two_gigabytes():
    answer = subprocess.run([sys.executable, "-c", PROGRAM, str(ROWS)], stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(answer.stdout)
    print(
        f"\nvalidation of {ROWS:,} rows: {figures['seconds']:.1f} s, peak {figures['peak_mib']:.0f} MiB "
        f"(the manifest itself: {figures['peak_before_mib']:.0f} MiB)"
    )
    assert figures["counts"]["near_duplicates"] > ROWS / 100 / 3
    assert figures["counts"]["exact_duplicates"] > 0
    assert figures["seconds"] < 60
    assert figures["peak_mib"] < 2048
