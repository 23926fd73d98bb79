"""The shipped pipelines, every script of them run as an agent would, with a Prefect server and the Azure bench."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings, get_settings
from tests.azure.bench import IDENTITY, SUBSCRIPTION, azure_settings
from tests.azure.fixtures import forget_clients
from tests.azure.parameters import bench_parameters
from tests.azure.small_platform import provision
from tests.pipelines import machine
from tests.pipelines.expansion import expand, load, scripts_of
from tests.pipelines.runner import Agent, Build
from tests.pipelines.test_schema import FOLDER, MAIN, PULL

pytestmark = [pytest.mark.azure, pytest.mark.timeout(900)]

FEW_TESTS = "tests/infra/test_agreement.py"
FEW_POLICIES = "-k every_exception_has_a_reason"
"""The suites that a pipeline runs, in a handful: what all of them say is said by themselves."""
Run = Callable[..., Build]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return machine.checkout(tmp_path_factory.mktemp("sources") / "s")


@pytest.fixture(scope="module")
def run(
    sources: Path, bench_process: Any, prefect_server: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Runs a pipeline on an agent of its own."""
    folder = tmp_path_factory.mktemp("agent")
    machine.stand_ins(folder)
    numbers = iter(range(4711, 9999))

    def run(name: str, parameters: dict[str, Any] | None = None, *, attempt: int = 1, **variables: str) -> Build:
        number = variables.setdefault("Build.BuildId", str(next(numbers)))
        given = {
            "Build.Reason": "Manual",
            "Build.BuildNumber": f"2026.11.{number}",
            "Build.RequestedFor": "Grace",
            "AHC_AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "PREFECT_API_URL": prefect_server.prefect_api_url,
            "AHC_HOME": str(folder / f"home-{number}"),
            "PYTEST_ADDOPTS": FEW_TESTS,
            "WORKERS": "0",
            **variables,
        }
        agent = Agent(
            sources,
            folder / f"{name}-{number}-{attempt}",
            variables=given,
            groups={"ahc-platform": {"prefect-api-auth-string": ""}},
            environment=machine.environment(folder, sources),
            attempt=attempt,
            signed_in={**IDENTITY, "idToken": "token", "servicePrincipalId": "client", "tenantId": SUBSCRIPTION},
        )
        return agent.run(expand(FOLDER / f"{name}.yml", parameters, given))

    yield run
    bench_process.assert_clean()


@pytest.fixture(scope="module")
def create(run: Run, bench_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The platform, from an empty subscription."""
    bench_process.reset()
    forget_clients()
    parameters = bench_parameters(tmp_path_factory.mktemp("arm") / "parameters", cluster=False)
    return run(
        "iac-create-environment-pipeline-arm",
        {"environment": "platform"},
        AHC_AZURE_PARAMETERS=str(parameters),
        PYTEST_ADDOPTS=FEW_POLICIES,
    )


@pytest.fixture(scope="module")
def remove(create: Build, run: Run) -> tuple[Build, Build]:
    """The same platform: with a wrong word, then the right one."""
    name = "iac-remove-environment-pipeline-arm"
    return (
        run(name, {"environment": "platform", "confirm": "test"}),
        run(name, {"environment": "platform", "confirm": "platform"}),
    )


@pytest.fixture(scope="module")
def main(run: Run, remove: Any, bench_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A push to main, with everything."""
    bench_process.reset()
    forget_clients()
    get_settings.cache_clear()
    provision(azure_settings(tmp_path_factory.mktemp("home")), "test")
    return run("AHImgClassifier-ci", {"train": "false"}, **MAIN)


def test_an_environment_is_planned_for_people_to_see_then_provisioned_and_checked(create, bench_process):
    assert create.result == "Succeeded", create.told
    plan = create.step("plan", "plan", "What would change, and what it costs")
    [summary] = [value for area, _, value in plan.commands if area == "task.uploadsummary"]
    told = Path(summary).read_text()
    assert "# Plan of platform" in told
    assert "🟩 create" in told
    assert "a month" in told
    assert create.stages["provision"].jobs["provision"].environment == "ahc-platform"
    assert "rg-ahc-platform" in str(bench_process.admin("state"))


def test_a_removal_needs_the_name_twice(remove):
    wrong, right = remove
    assert wrong.result == "Failed"
    assert "ConfigurationError" in wrong.told
    assert "exit code 20" in wrong.told
    assert right.result == "Succeeded", right.told


def test_a_push_to_main_is_checked_built_once_published_and_deployed(main, bench_process):
    assert main.result == "Succeeded", main.told
    for image in ("scoring", "training"):
        job = main.stages["images"].jobs[image]
        assert job.outputs["build.imageReference"].startswith(f"crahcplatform.azurecr.io/{image}@sha256:")
        assert job.outputs["build.imageReference"] in job.step("Look for known vulnerabilities in it").output
    builds = [call for call in bench_process.calls() if "scheduleRun" in call["url"] and call["method"] == "POST"]
    assert len(builds) == 2
    assert "deployment lifecycle/local" in main.step("publish", "publish", "Deployments to the Prefect server").output


def test_a_change_that_breaks_a_rule_is_red_and_goes_no_further(run, main, sources):
    broken = sources / "flows" / "broken.py"
    broken.write_text("import os\n")
    try:
        build = run("AHImgClassifier-ci", **PULL)
    finally:
        broken.unlink()
    results = {step.shown: step.result for step in build.stages["check"].jobs["quality"].steps}
    assert results["Lint"] == "Failed"
    assert results["Unit tests"] == "Skipped"
    assert build.result == "Failed"


def test_every_script_was_run(create, remove, main):
    """A script that no test runs may say anything."""
    run = {
        origin
        for build in (create, *remove, main)
        for step in build.steps
        if step.script is not None
        for origin in step.script.origins
    }
    written = {
        origin for path in FOLDER.rglob("*.yml") for script in scripts_of(load(path)) for origin in script.origins
    }
    assert written - run == set()
