"""checkov, a policy linter, on the templates as they are composed; `infra/arm/checkov.yaml` has the exceptions."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from infra.azure.access.resources import PLATFORM
from infra.azure.provisioning.templates import TEMPLATES, compose
from tests.support.azure import parameters
from tests.support.azure.expanded_template import expand
from tests.support.azure.parameters import ENVIRONMENTS, PRIVATE, change, with_environment

pytestmark = pytest.mark.azure

CONFIG = TEMPLATES / "checkov.yaml"
AGENT = {"buildAgent": True, "natGateway": True, "buildAgentSshKey": "ssh-ed25519 AAAA agent"}
OPEN = "closed to identities"
"""Begins the first group of exceptions: those that the private parameters make unnecessary."""


@pytest.fixture(scope="module")
def checkov():
    program = os.environ.get("AHC_CHECKOV") or shutil.which("checkov")
    if program is None:
        pytest.skip(
            "checkov is not on PATH; in an environment of its own: pip install 'checkov>=3.3,<3.4', then "
            "AHC_CHECKOV=.../bin/checkov pytest tests/infra/azure/provisioning/test_policies.py"
        )
    return program


@pytest.fixture
def settings(tmp_path):
    return parameters.shipped_settings(tmp_path)


def lint(program: str, folder: Path, config: Path, **composed) -> tuple[set[tuple[str, str]], int]:
    """(failed checks with the resource, how many passed) of composed deployments."""
    folder.mkdir()
    for name, each in composed.items():
        # checkov doesn't look into nested templates, nor at what loops make: it gets the plan.
        resources = [{**item.body, "name": name_of(item.name, number)} for number, item in enumerate(expand(each))]
        document = {"$schema": each.template["$schema"], "contentVersion": "1.0.0.0", "resources": resources}
        (folder / f"{name}.json").write_text(json.dumps(document))
    command = [program, "--config-file", str(config), "--directory", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    failed = {(item["check_id"], item["resource"]) for item in report["results"]["failed_checks"]}
    return failed, report["summary"]["passed"]


def name_of(name: str, number: int) -> str:
    return f"guid-{number}" if name.startswith("[") else name.replace("*", "abc123")


def exceptions() -> list[tuple[str, str]]:
    """Each exception with its reason."""
    text = CONFIG.read_text().partition("skip-check:")[2]
    return re.findall(r"^  - (CKV\w+) ?#? ?(.*)$", text, re.MULTILINE)


def test_every_exception_has_a_reason():
    assert len(exceptions()) == len(yaml.safe_load(CONFIG.read_text())["skip-check"])
    assert all(reason for _, reason in exceptions())


def test_the_shipped_parameters_pass_but_for_reviewed_exceptions(checkov, settings, tmp_path):
    change(settings.azure_parameters / "platform.json", **AGENT)
    web = with_environment(settings, tmp_path, endpoint="app-service")
    targets = {name: compose(name, settings) for name in (PLATFORM, *ENVIRONMENTS)}
    failed, passed = lint(checkov, tmp_path / "plans", CONFIG, **targets, web=compose("test", web))
    assert failed == set()
    assert passed > 80


def test_private_parameters_need_none_of_the_exceptions_for_networks(checkov, settings, tmp_path):
    for name in (PLATFORM, "test"):
        change(settings.azure_parameters / f"{name}.json", **PRIVATE)
    closed = with_environment(settings, tmp_path, private=True)
    config = yaml.safe_load(CONFIG.read_text())
    group = CONFIG.read_text().partition(OPEN)[2].partition("# A choice of each environment")[0]
    networks = re.findall(r"- (CKV\w+)", group)
    assert len(networks) >= 7
    config["skip-check"] = [check for check in config["skip-check"] if check not in networks]
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(config))
    plans = {name: compose(name, closed) for name in (PLATFORM, "test")}
    failed, _ = lint(checkov, tmp_path / "plans", tmp_path / "strict.yaml", **plans)
    assert failed == set()


def test_every_exception_is_still_needed(checkov, settings, tmp_path):
    change(settings.azure_parameters / "platform.json", **AGENT)
    web = with_environment(settings, tmp_path, endpoint="app-service")
    config = {**yaml.safe_load(CONFIG.read_text()), "skip-check": []}
    (tmp_path / "none.yaml").write_text(yaml.safe_dump(config))
    plans = {"platform": compose(PLATFORM, settings), "web": compose("test", web)}
    failed, _ = lint(checkov, tmp_path / "plans", tmp_path / "none.yaml", **plans)
    assert {check for check, _ in failed} == {check for check, _ in exceptions()}
