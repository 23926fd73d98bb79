"""Gates before a release begins: a real registry, real endpoints, a real ledger, runs on a real Prefect server."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import flow
from prefect.client.schemas.objects import FlowRun

from infra.backend import backend, release_target
from infra.config.environments import load_environment
from infra.errors import ConfigurationError, ReleaseHeld
from infra.ports import LiveModel, RegisteredModel
from infra.settings import Settings, get_settings
from model.errors import BundleCorrupt
from tasks.framework.run_starter import UNKNOWN, who_started
from tasks.release.check_version import Releasable, check_return, check_version
from tests.conftest import environment_restored
from tests.support.bundles import make_bundle

ENVIRONMENTS = {"acceptance": 2, "production": 3}


@flow(log_prints=False)
def checking(name: str, version: int, environment: str, **how: Any) -> Releasable:
    return check_version(name, version, load_environment(environment, get_settings().environments), **how)


@flow
def going_back(name: str, version: int, environment: str) -> Releasable:
    return check_return(name, version, load_environment(environment, get_settings().environments))


@pytest.fixture
def settings(prefect_server, tmp_path):
    """A home of its own, on the server that all tests share."""
    with environment_restored():
        os.environ |= {"AHC_HOME": str(tmp_path / "home"), "AHC_ENVIRONMENTS": str(tmp_path / "environments")}
        (tmp_path / "environments").mkdir()
        get_settings.cache_clear()
        for name in ENVIRONMENTS:
            describe(get_settings(), name)
        yield get_settings()
        for name in ENVIRONMENTS:
            release_target(name, get_settings()).endpoint().stop()


def describe(settings: Settings, name: str, **gates: Any) -> None:
    described = {"name": name, "description": "x", "port_offset": ENVIRONMENTS[name], "gates": gates}
    (settings.environments / f"{name}.yaml").write_text(yaml.safe_dump(described, default_flow_style=False))


def register(settings: Settings, **tags: str) -> RegisteredModel:
    """The next version, with the lineage of its bundle."""
    folder = settings.path("made") / uuid4().hex
    bundle = make_bundle(folder, code=folder.name)
    known = {"verdict": "promote", "data_version": "0" * 16, "data_uri": "memory://", "code": folder.name}
    return (
        backend(settings)
        .registry()
        .register(folder, name=bundle.name, digest=bundle.digest, tags={**known, "mlflow_run": "", **tags}, metrics={})
    )


def version(settings: Settings, **tags: str) -> RegisteredModel:
    """MLflow wants a run that it knows only where one is named."""
    model = register(settings, **tags)
    backend(settings).registry().tag(model, {"mlflow_run": "0123"})
    return model


def serve(settings: Settings, name: str, model: RegisteredModel) -> None:
    target = release_target(name, settings).endpoint()
    live = LiveModel(name=model.name, version=model.version, digest=model.digest)
    target.switch(target.deploy(backend(settings).registry().download(model, settings.path("served")), live))


def started(settings: Settings, environment: str = "production") -> list[tuple[int, str, str, dict[str, Any]]]:
    events = backend(settings).ledger().events(environment)
    return [(event.model.version, event.by, event.reason, event.details) for event in events if event.kind == "started"]


def test_a_version_in_order_may_go_and_the_ledger_says_who_started_it(settings):
    model = version(settings)
    checked = checking(model.name, 1, "production", by=" Jan ")
    assert (checked.model.version, checked.already_live) == (1, False)
    assert started(settings) == [(1, "Jan", "", {})]


def test_an_older_version_needs_force_and_a_reason_and_both_are_in_the_ledger(settings):
    old, new = version(settings), version(settings)
    serve(settings, "production", new)
    with pytest.raises(ReleaseHeld) as held:
        checking(old.name, 1, "production")
    assert "colours v1 doesn't go live in production now: it is older than v2, which is live" in str(held.value)
    command = 'ahc trigger release/production -p name=colours -p version=1 -p force=true -p reason="..."'
    assert command in held.value.next_step
    with pytest.raises(ConfigurationError, match="`force` needs a reason"):
        checking(old.name, 1, "production", force=True, reason=" ")
    assert started(settings) == []

    assert not checking(old.name, 1, "production", by="jan", force=True, reason="v2 is slow").already_live
    assert started(settings) == [(1, "jan", "v2 is slow", {"forced": ["age"]})]
    # What is in no one's way isn't called forced.
    checking(version(settings).name, 3, "production", by="jan", force=True, reason="to be sure")
    assert started(settings)[-1] == (3, "jan", "to be sure", {})


def test_every_gate_that_holds_is_told_with_the_time_when_it_opens(settings):
    model = version(settings)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    describe(
        settings,
        "production",
        requires="acceptance",
        soak_minutes=60,
        freeze=[{"reason": "year end", "start": "2020-01-01T00:00:00Z", "end": until.isoformat()}],
    )
    serve(settings, "acceptance", model)
    live = LiveModel(name=model.name, version=1, digest=model.digest)
    backend(settings).ledger().append("acceptance", "switched", live, by="jan", run="r")
    with pytest.raises(ReleaseHeld) as held:
        checking(model.name, 1, "production")
    assert "nothing is released now (year end), until" in str(held.value)
    assert "it must have been live in acceptance for 60 minutes, and is since" in str(held.value)
    assert held.value.next_step.startswith(f"Wait until {until:%Y-%m-%d %H:%M} UTC")
    assert "then `ahc rerun " in held.value.next_step
    checking(model.name, 1, "production", force=True, reason="users are hurt")
    assert started(settings)[0][3] == {"forced": ["freeze", "soak"]}


def test_force_passes_no_verdict_no_lineage_no_required_environment_and_no_digest(settings):
    forced = {"force": True, "reason": "now"}
    version(settings, verdict="reject", verdict_reason="worse on fish")
    with pytest.raises(ConfigurationError, match="verdict `reject`: worse on fish"):
        checking("colours", 1, "production", **forced)
    version(settings, code="another commit")
    with pytest.raises(ConfigurationError, match="lineage of colours v2 is incomplete: `code` is another commit"):
        checking("colours", 2, "production", **forced)
    register(settings)
    with pytest.raises(ConfigurationError, match="doesn't say its `mlflow_run`"):
        checking("colours", 3, "production", **forced)
    version(settings)
    describe(settings, "production", requires="acceptance")
    with pytest.raises(ConfigurationError, match="not live in acceptance, which production requires"):
        checking("colours", 4, "production", **forced)
    describe(settings, "production")
    model = version(settings)
    (settings.home / "registry" / "colours" / model.digest / "labels.json").write_text("[]")
    with pytest.raises(BundleCorrupt):
        checking("colours", 5, "production", **forced)
    assert started(settings) == []


def test_what_is_live_already_passes_every_gate_and_starts_nothing(settings):
    model = version(settings, **{"rolled_back.production": "fish"})
    describe(settings, "production", freeze=[{"reason": "closed", "days": ["monday", "tuesday", "wednesday"]}])
    serve(settings, "production", model)
    assert checking(model.name, 1, "production").already_live
    assert started(settings) == []


def test_a_ledger_that_was_edited_is_said_and_stops_no_release(settings, caplog):
    model = version(settings)
    checking(model.name, 1, "production", by="jan 1")
    live = LiveModel(name=model.name, version=1, digest=model.digest)
    backend(settings).ledger().append("production", "switched", live, by="jan 1", run="r")
    file = settings.home / "ledger" / "production" / "00000001.json"
    file.write_text(file.read_text().replace("jan 1", "piet"))
    assert not checking(model.name, 1, "production", by="jan 3").already_live
    assert "The release ledger of production is broken: 00000001.json was edited." in caplog.text


def test_a_rerun_starts_no_second_time_in_the_ledger(settings):
    model = version(settings)

    @flow
    def twice() -> None:
        target = load_environment("production", settings.environments)
        for _ in range(2):
            check_version(model.name, 1, target, by="jan")

    twice()
    assert len(started(settings)) == 1


def test_on_the_way_back_no_gate_stands_between_users_and_a_version_that_works(settings):
    model, newer = register(settings), version(settings)
    describe(settings, "production", requires="acceptance", freeze=[{"reason": "x", "days": ["monday"]}])
    serve(settings, "production", newer)
    assert going_back(model.name, 1, "production").model.version == 1
    assert started(settings) == []
    register(settings, verdict="reject")
    with pytest.raises(ConfigurationError, match="verdict `reject`"):
        going_back(model.name, 3, "production")


def test_with_four_eyes_a_release_says_who_started_it(settings, monkeypatch):
    version(settings)
    describe(settings, "production", four_eyes=True)
    monkeypatch.setattr(
        "tasks.release.check_version.started_by", lambda by: by or UNKNOWN
    )  # as in a run of the UI's form
    with pytest.raises(ConfigurationError, match="this run doesn't say who started it"):
        checking("colours", 1, "production")
    checking("colours", 1, "production", by="jan")


@pytest.mark.parametrize(
    ("how", "who"),
    [
        ({"parameters": {"by": " Jan "}, "tags": ["by:piet"]}, "Jan"),
        ({"tags": ["correlation:1", "by:piet"], "deployment_id": uuid4()}, "piet"),
        ({"auto_scheduled": True, "deployment_id": uuid4()}, "trigger:schedule"),
        ({"deployment_id": uuid4(), "parameters": {"by": None}}, UNKNOWN),
    ],
)
def test_who_started_a_run_is_told_by_its_parameter_its_tag_or_how_it_came_to_be(how, who):
    assert who_started(FlowRun(flow_id=uuid4(), **how)) == who
