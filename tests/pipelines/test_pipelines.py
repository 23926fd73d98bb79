"""The shipped pipelines, every script of them run as an agent would, with a Prefect server and the Azure bench."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.backend import backend, release_target
from infra.local.platform.platform import Platform
from infra.local.platform.prefect_settings import prefect_environment, use_prefect
from infra.ports import EndpointStatus
from infra.settings import PROJECT, Settings, get_settings
from tests.conftest import environment_restored, free_ports, settings_environment
from tests.infra.azure_devops.test_approvals import JANSEN, approve, stage_waits
from tests.pipelines.test_schema import FOLDER, MAIN, PULL
from tests.support.azure.bench import IDENTITY, SUBSCRIPTION, azure_settings
from tests.support.azure.fixtures import forget_clients
from tests.support.azure.parameters import bench_parameters
from tests.support.azure.small_platform import provision
from tests.support.azure_devops.organisation import BUILD_TOKEN
from tests.support.azure_devops.standin import standing_in
from tests.support.bundles import make_bundle
from tests.support.local_endpoint import stop_endpoints
from tests.support.pipelines import machine
from tests.support.pipelines.expansion import expand, load, scripts_of
from tests.support.pipelines.runner import Agent, Build

pytestmark = [pytest.mark.azure, pytest.mark.timeout(900)]

FEW_TESTS = "tests/infra/releases/test_record_agreement.py"
FEW_POLICIES = "-k every_exception_has_a_reason"
"""The suites that a pipeline runs, in a handful: what all of them say is said by themselves."""
Run = Callable[..., Build]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return machine.checkout(tmp_path_factory.mktemp("sources") / "s")


@pytest.fixture(scope="module")
def server(bench_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A Prefect server with a worker that releases on this machine; production is not watched for minutes."""
    folder = tmp_path_factory.mktemp("platform")
    environments = shutil.copytree(PROJECT / "deployments" / "environments", folder / "environments")
    gates = {"requires": "acceptance", "approval": True, "approvers": ["Jansen@Contoso.com"], "four_eyes": True}
    (environments / "production.yaml").write_text(
        yaml.safe_dump({"name": "production", "description": "x", "port_offset": 3, "gates": gates})
    )
    prefect, mlflow, endpoints, *_ = free_ports(10)
    settings = Settings(
        home=folder / "home",
        environments=environments,
        prefect_port=prefect,
        mlflow_port=mlflow,
        endpoint_base_port=endpoints,
    )
    with environment_restored():
        # The worker's runs inherit it, ports included.
        os.environ.update({**prefect_environment(settings), **settings_environment(settings)})
        with Platform(settings) as platform:
            use_prefect(settings)
            get_settings.cache_clear()
            platform.wait_until_ready()
            yield settings
            stop_endpoints(settings)


@pytest.fixture(scope="module")
def run(sources: Path, bench_process: Any, server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
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
            "PREFECT_API_URL": server.prefect_api_url,
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
    # The check of this machine in the place of a training: a real deployment that was deployed a moment ago.
    return run("AHImgClassifier-ci", {"training": "infrastructure/local"}, **MAIN)


@pytest.fixture(scope="module")
def released(
    main: Build, run: Run, server: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Build, Build]]:
    """A version that was just registered, released on this machine; and the same stages once more."""
    folder = tmp_path_factory.mktemp("model")
    bundle = make_bundle(folder / "bundle", name="colours")
    lineage = {"data_version": "0" * 16, "data_uri": "memory://", "code": "test", "mlflow_run": "a run"}
    tags = {"verdict": "promote", **lineage}
    backend(server).registry().register(Path(bundle.path), name="colours", digest=bundle.digest, tags=tags, metrics={})
    with standing_in() as organisation:
        stage_waits(organisation, build=815)
        approve(organisation, JANSEN, "checked on 200 photos")
        content = yaml.safe_load((PROJECT / "deployments" / "devops.yaml").read_text())
        (folder / "devops.yaml").write_text(yaml.safe_dump({**content, "organisation": organisation.address}))
        variables = {
            **settings_environment(server),
            "AHC_DEVOPS": str(folder / "devops.yaml"),
            "Build.BuildId": "815",
            "Build.Reason": "ResourceTrigger",
            "System.AccessToken": BUILD_TOKEN,
            "System.CollectionUri": f"{organisation.address}/",
            "System.TeamProject": "AHClassifier",
        }
        first = run("AHImgClassifier-cd", **variables)
        yield first, run("AHImgClassifier-cd", attempt=2, **variables)


@pytest.fixture(scope="module")
def nightly(run: Run) -> Build:
    """Which tests of whole platforms it would run; all that it runs takes an hour."""
    return run("AHImgClassifier-nightly", PYTEST_ADDOPTS="--collect-only --quiet tests/e2e")


def status_of(environment: str, server: Settings, patience: float = 60) -> EndpointStatus:
    """Asked again where it took too long to answer, as it may on a busy machine."""
    deadline = time.monotonic() + patience
    while (
        status := release_target(environment, server).endpoint().status()
    ).live is None and time.monotonic() < deadline:
        time.sleep(1)
    return status


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


def test_a_new_version_reaches_production_with_the_name_of_its_approver(released, server):
    build, again = released
    assert build.result == "Succeeded", build.told
    assert ("build.addbuildtag", {}, "colours-v1") in build.step("find", "find", "Find the version").commands
    for environment in ("test", "acceptance", "production"):
        status = status_of(environment, server)
        assert status.live is not None, status
        assert status.live.label == "colours v1"
        assert build.stages[environment].jobs["release"].environment == f"ahc-{environment}"
    [approved] = [event for event in backend(server).ledger().events("production") if event.kind == "approved"]
    assert (approved.by, approved.reason) == ("Jansen@Contoso.com", "checked on 200 photos")
    # A second run of the stages attaches to the same runs.
    assert again.result == "Succeeded", again.told
    for environment in ("test", "acceptance", "production"):
        ids = [item.stages[environment].jobs["release"].outputs["run.runId"] for item in released]
        assert ids[0] == ids[1]


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


def test_whole_platforms_are_tested_every_night(nightly):
    assert nightly.result == "Succeeded", nightly.told
    assert "tests/e2e/test_lifecycle.py" in nightly.step("check", "platforms", "End-to-end tests").output
    assert "tests/e2e/test_releases.py" in nightly.step("check", "platforms", "Long tests").output


def test_every_script_was_run(create, remove, main, released, nightly):
    """A script that no test runs may say anything."""
    builds = (create, *remove, main, *released, nightly)
    scripts = [step.script for build in builds for step in build.steps if step.script is not None]
    run = {origin for script in scripts for origin in script.origins}
    written = {
        origin for path in FOLDER.rglob("*.yml") for script in scripts_of(load(path)) for origin in script.origins
    }
    assert written - run == set()
