"""Who approved a stage, and decisions of Prefect carried over, on a stand-in of Azure DevOps and real ledgers."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from deployments.cli.main import run
from infra.azure_devops.approvals import carry_over
from infra.backend import backend
from infra.errors import AccessDenied, ConfigurationError, DevOpsRefused
from infra.ports import LiveModel
from infra.settings import Settings, get_settings
from tests.support.azure_devops.organisation import BUILD_TOKEN, Fault

BUILD = 321
V7 = LiveModel(name="food", version=7, digest="7" * 64)
V8 = LiveModel(name="food", version=8, digest="8" * 64)
JANSEN = {"displayName": "A. Jansen", "uniqueName": "jansen@contoso.com"}


def stage_waits(organisation, stage="production", *, approval="approval-1", tags=("food-v7",), build=BUILD):
    """A build whose stage waits for an approval."""
    organisation.definitions.append({"id": 5, "name": "AHImgClassifier-cd"})
    organisation.builds.append(
        {
            "id": build,
            "status": "inProgress",
            "definition": {"id": 5},
            "tags": list(tags),
            "queueTime": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(),
        }
    )
    organisation.timelines[build] = [
        {"id": f"s-{approval}", "type": "Stage", "name": f"Release to {stage}", "identifier": stage, "parentId": None},
        {"id": f"c-{approval}", "type": "Checkpoint", "name": "Checkpoint", "parentId": f"s-{approval}"},
        {"id": approval, "type": "Checkpoint.Approval", "parentId": f"c-{approval}", "state": "inProgress"},
    ]
    organisation.approvals.append({"id": approval, "status": "pending", "steps": []})


def approve(organisation, person, comment="", approval="approval-1"):
    found = next(item for item in organisation.approvals if item["id"] == approval)
    found["status"] = "approved"
    found["steps"] = [
        {
            "status": "approved",
            "comment": comment,
            "assignedApprover": {"displayName": "[AHClassifier]\\Contributors"},
            "actualApprover": person,
            "lastModifiedOn": "2026-11-24T10:00:00Z",
        }
    ]


@pytest.fixture
def environments(tmp_path):
    folder = tmp_path / "environments"
    folder.mkdir()
    (folder / "test.yaml").write_text("name: test\ndescription: x\nport_offset: 1\n")
    (folder / "production.yaml").write_text(
        "name: production\ndescription: x\nport_offset: 2\n"
        "gates: {approval: true, approvers: [Jansen@Contoso.com, P. Bakker]}\n"
    )
    return folder


@pytest.fixture
def settings(tmp_path, environments, organisation, monkeypatch) -> Settings:
    file = tmp_path / "devops.yaml"
    file.write_text(
        f"organisation: {organisation.address}\nproject: AHClassifier\nrepository: AHClassifier\nmirror: id-ahc-flows\n"
        "approvers: [x]\npipelines:\n  AHImgClassifier-cd: {file: cd.yml, webhook: true}\n"
    )
    for name in [name for name in os.environ if name.startswith("AHC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AHC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AHC_ENVIRONMENTS", str(environments))
    monkeypatch.setenv("AHC_DEVOPS", str(file))
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture
def step(settings, organisation, monkeypatch):
    """The variables of an agent in the stage `production`."""
    monkeypatch.delenv("AZURE_DEVOPS_EXT_PAT")
    monkeypatch.setenv("SYSTEM_ACCESSTOKEN", BUILD_TOKEN)
    monkeypatch.setenv("SYSTEM_COLLECTIONURI", organisation.address + "/")
    monkeypatch.setenv("SYSTEM_TEAMPROJECT", "AHClassifier")
    monkeypatch.setenv("BUILD_BUILDID", str(BUILD))
    monkeypatch.setenv("SYSTEM_STAGENAME", "production")


def told(capsys, environment="ahc-production"):
    assert run(["devops", "approver", "--environment", environment]) == 0
    answer = json.loads(capsys.readouterr().out)
    return answer["name"], answer["comment"]


def test_the_approver_is_named_as_the_environment_file_does_with_the_comment(step, organisation, capsys):
    stage_waits(organisation)
    approve(organisation, JANSEN, "checked on\n 200 photos")
    assert told(capsys) == ("Jansen@Contoso.com", "checked on 200 photos")
    assert told(capsys, "production") == ("Jansen@Contoso.com", "checked on 200 photos")


def test_whom_no_file_names_is_called_by_name_and_an_empty_comment_says_where(step, organisation, capsys):
    stage_waits(organisation)
    approve(organisation, {"displayName": "C. de Vries", "uniqueName": "vries@contoso.com"})
    assert told(capsys) == ("C. de Vries", "approved in Azure DevOps, build 321")


def test_another_stage_of_the_build_counts_for_nothing(step, organisation, capsys):
    stage_waits(organisation, "acceptance")
    approve(organisation, JANSEN)
    assert told(capsys) == ("", "")


def test_where_nobody_had_to_approve_the_answer_is_empty(step, organisation, capsys, monkeypatch):
    monkeypatch.setenv("SYSTEM_STAGENAME", "test")
    organisation.timelines[BUILD] = [{"id": "s", "type": "Stage", "identifier": "test", "parentId": None}]
    assert told(capsys, "ahc-test") == ("", "")


def test_an_approval_that_the_file_asks_for_and_nobody_gave_is_told_on_the_side(step, organisation, capsys):
    organisation.timelines[BUILD] = []
    assert run(["devops", "approver", "--environment", "production"]) == 0
    assert "ahc devops init" in capsys.readouterr().err


def test_a_decision_that_the_platform_carried_over_is_the_persons(step, organisation, capsys):
    stage_waits(organisation)
    approve(organisation, {"displayName": "id-ahc-flows"}, "Approved in Prefect by P. Bakker: evidence: fine")
    assert told(capsys) == ("P. Bakker", "evidence: fine")


def test_nobody_decides_in_the_name_of_another_by_a_comment(step, organisation, capsys):
    stage_waits(organisation)
    approve(organisation, JANSEN, "Approved in Prefect by P. Bakker: fine")
    assert told(capsys)[0] == "Jansen@Contoso.com"


def test_outside_of_a_build_the_missing_variables_are_named(settings, capsys, monkeypatch):
    monkeypatch.delenv("BUILD_BUILDID", raising=False)
    assert run(["devops", "approver", "--environment", "production"]) == ConfigurationError.exit_code
    assert "BUILD_BUILDID" in capsys.readouterr().err


@pytest.fixture
def decided(settings):
    """Writes a decision into the ledger, as a release of Prefect does."""

    def write(kind, model=V7, environment="production"):
        backend(settings).ledger().append(
            environment, kind, model, by="P. Bakker", reason="the evidence is fine", run="r"
        )

    return write


def mirrored(capsys):
    assert run(["devops", "mirror", "--json"]) == 0
    return [(item["build"], item["decision"], item["by"]) for item in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize("kind", ["approved", "rejected"])
def test_a_decision_of_prefect_is_given_to_the_stage_that_waits_once(settings, organisation, decided, capsys, kind):
    stage_waits(organisation)
    decided(kind)
    assert mirrored(capsys) == [(BUILD, kind, "P. Bakker")]
    approval = organisation.approvals[0]
    assert approval["status"] == kind
    assert approval["steps"][0]["comment"] == f"{kind.capitalize()} in Prefect by P. Bakker: the evidence is fine"
    assert mirrored(capsys) == []
    assert len([call for call in organisation.written if call.startswith("PATCH")]) == 1


def test_a_stage_waits_on_while_nobody_decided_about_its_version(settings, organisation, decided, capsys):
    stage_waits(organisation)
    decided("approved", V8)
    decided("approved", V7, "test")
    decided("started")
    assert mirrored(capsys) == []
    assert organisation.approvals[0]["status"] == "pending"


def test_a_decision_from_before_the_build_was_queued_is_another_ones(settings, organisation, decided, capsys):
    decided("rejected")
    stage_waits(organisation)
    organisation.builds[0]["queueTime"] = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assert mirrored(capsys) == []


def test_who_was_quicker_in_azure_devops_stays_the_one_who_decided(
    settings, organisation, decided, devops, project_file
):
    stage_waits(organisation)
    decided("approved")
    organisation.approvals[0]["status"] = "rejected"
    pipelines = {"AHImgClassifier-cd": project_file.pipelines["AHImgClassifier-cd"]}
    project_file = project_file.model_copy(update={"pipelines": pipelines})
    assert carry_over(devops, project_file, backend(settings).ledger().events, ["production"]) == ()
    assert organisation.approvals[0]["status"] == "rejected"


def test_a_platform_that_is_no_approver_is_told(settings, organisation, decided, capsys):
    stage_waits(organisation)
    decided("approved")
    organisation.faults.append(Fault("PATCH", "/approvals", 403))
    assert run(["devops", "mirror"]) == AccessDenied.exit_code
    organisation.faults.append(Fault("PATCH", "/approvals", 400))
    assert run(["devops", "mirror"]) == DevOpsRefused.exit_code
