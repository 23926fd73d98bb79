import json

import pytest

from deployments.cli.commands.rollback import _version
from deployments.cli.main import run as ahc
from infra.backend import backend, release_target
from infra.errors import ConfigurationError, ModelNotFound
from infra.ports import EndpointStatus, LiveModel
from tests.deployments.cli.commands.test_run import in_a_process
from tests.support.bundles import make_bundle

pytestmark = pytest.mark.thorough


@pytest.fixture
def two_versions(home, tmp_path):
    """Version 2 is live in `test`, version 1 is warm."""
    target = release_target("test", home).endpoint()
    models = backend(home).registry()
    try:
        for bias in (0.0, 0.1):
            folder = tmp_path / f"bundle-{bias}"
            bundle = make_bundle(folder, bias=bias)
            model = models.register(
                folder, name=bundle.name, digest=bundle.digest, tags={"verdict": "promote"}, metrics={}
            )
            live = LiveModel(name=model.name, version=model.version, digest=model.digest)
            target.switch(target.deploy(folder, live))
            models.set_champion(model, "test")
        yield home
    finally:
        target.stop()


def test_without_a_server_the_previous_version_is_back_and_the_registry_knows(two_versions, capsys):
    done = in_a_process("rollback", "test", "--reason", "fish is wrong", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["before"]["live"]["version"], told["after"]["live"]["version"]) == (2, 1)
    models = backend(two_versions).registry()
    assert models.get("colours", 2).tags["rolled_back.test"] == "fish is wrong"

    assert ahc(["status", "--json"]) == 0
    environment = json.loads(capsys.readouterr().out)["environments"][0]
    assert environment["endpoint"]["live"]["version"] == 1
    assert environment["champion"]["version"] == 1
    assert environment["differences"] == []
    assert environment["last_event"]["kind"] == "rolled-back"

    assert ahc(["doctor", "--env", "test"]) == 0
    assert "golden images are answered as expected" in capsys.readouterr().out


def test_an_unknown_environment_is_named_with_the_nearest(home, capsys):
    assert ahc(["rollback", "acceptence"]) == 20
    assert "did you mean `acceptance`?" in capsys.readouterr().err


LIVE = EndpointStatus(
    environment="test", url="x", state="running", live=LiveModel(name="food", version=7, digest="a" * 64)
)
STOPPED = EndpointStatus(environment="test", url="x", state="stopped")


@pytest.mark.parametrize(
    ("to", "expected"),
    [("6", ("food", 6)), ("v6", ("food", 6)), ("food:6", ("food", 6)), ("other v2", ("other", 2))],
)
def test_a_version_is_written_in_any_usual_way(home, to, expected):
    found = _version(to, LIVE, home)
    assert (found["name"], found["version"]) == expected


def test_a_version_that_is_none_or_of_no_known_model_is_an_error(home):
    with pytest.raises(ConfigurationError, match="is no version"):
        _version("latest", LIVE, home)
    with pytest.raises(ModelNotFound, match="never ran a model"):
        _version("6", STOPPED, home)


def test_with_a_server_and_a_worker_the_rollback_is_a_run_that_everybody_sees(platform, capsys):
    from prefect.utilities.callables import parameter_schema

    from deployments.runs.queries import find_run
    from deployments.server.connection import server
    from flows.rollback import rollback

    with server(platform) as client:
        client.create_deployment(
            flow_id=client.create_flow(rollback),
            name="production",
            work_pool_name="local",
            entrypoint="flows.rollback.rollback",
            parameter_openapi_schema=parameter_schema(rollback).model_dump_for_openapi(),
            job_variables={"command": "python -m prefect.engine"},
        )
    assert ahc(["rollback", "production", "--reason", "a test"]) == 28
    assert "runs/flow-run" in capsys.readouterr().out
    with server(platform) as client:
        run = find_run(client, "rollback production")
    assert run.state_name == "NothingToRollBackTo"
    assert run.parameters["reason"] == "a test"
