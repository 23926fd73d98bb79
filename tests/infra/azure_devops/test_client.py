"""What Azure DevOps's refusals become, and which of them are asked again."""

import pytest

from infra.azure_devops.client import DevOps
from infra.azure_devops.project import find_project, find_repository
from infra.azure_devops.sign_in import TOKEN_OF_A_BUILD, TOKEN_OF_A_PERSON, authorization
from infra.azure_devops.webhook import announce
from infra.errors import AccessDenied, Conflict, DevOpsRefused, NoCredentials, ServiceUnavailable
from infra.ports import LiveModel
from tests.support.azure_devops.organisation import BUILD_TOKEN, PAT, Fault


def test_a_token_that_is_unknown_is_answered_with_what_to_set(organisation, devops, monkeypatch):
    monkeypatch.setenv(TOKEN_OF_A_PERSON, "expired")
    with pytest.raises(NoCredentials, match=r"203 \(a sign-in page\)") as refused:
        find_project(devops, "AHClassifier")
    assert TOKEN_OF_A_PERSON in refused.value.next_step
    assert "expired" not in str(refused.value)


def test_a_step_of_a_build_signs_in_with_the_token_of_the_build(organisation, devops, monkeypatch):
    monkeypatch.delenv(TOKEN_OF_A_PERSON)
    monkeypatch.setenv(TOKEN_OF_A_BUILD, BUILD_TOKEN)
    assert find_project(devops, "AHClassifier").name == "AHClassifier"


def test_no_token_is_readable_in_what_is_printed_of_it(organisation):
    assert PAT not in f"{authorization()!r} {authorization()}"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, NoCredentials), (302, NoCredentials), (403, AccessDenied), (409, Conflict)]
)
def test_a_refusal_is_told_as_what_it_is_and_not_tried_again(organisation, devops, waits, status, kind):
    organisation.faults.append(Fault("GET", "/_apis/projects/", status))
    with pytest.raises(kind, match="injected"):
        find_project(devops, "AHClassifier")
    assert waits == []


def test_a_throttled_request_waits_as_long_as_it_is_asked_to(organisation, devops, waits):
    organisation.faults.append(Fault("GET", "/_apis/projects/", 429, headers={"Retry-After": "7"}, times=2))
    assert find_project(devops, "AHClassifier").name == "AHClassifier"
    assert waits == [7.0, 7.0]


def test_a_service_that_asks_to_wait_for_an_hour_is_told_as_busy(organisation, devops, waits):
    organisation.faults.append(Fault("GET", "/_apis/projects/", 429, headers={"Retry-After": "3600"}))
    with pytest.raises(ServiceUnavailable):
        find_project(devops, "AHClassifier")
    assert waits == []


def test_a_broken_service_and_a_broken_connection_are_tried_again(organisation, devops, waits):
    organisation.faults += [Fault("GET", "/_apis/projects/", 500), Fault("GET", "/_apis/projects/", 0)]
    assert find_project(devops, "AHClassifier").name == "AHClassifier"
    assert len(waits) == 2


def test_a_post_that_may_have_done_its_work_is_not_sent_twice(organisation, devops, waits):
    organisation.faults.append(Fault("POST", "/environments", 502, after_work=True))
    with pytest.raises(ServiceUnavailable):
        devops.send("POST", "AHClassifier/_apis/distributedtask/environments", {"name": "ahc-test", "description": ""})
    assert [item["name"] for item in organisation.environments] == ["ahc-test"]
    assert waits == []


def test_a_project_or_repository_that_isnt_there_is_named_with_what_to_do(organisation, devops):
    with pytest.raises(DevOpsRefused, match="has no project `Elsewhere`"):
        find_project(devops, "Elsewhere")
    with pytest.raises(DevOpsRefused, match="has no repository `elsewhere`") as refused:
        find_repository(find_project(devops, "AHClassifier"), "elsewhere")
    assert "git push" in refused.value.next_step


def test_an_organisation_that_doesnt_answer_is_unavailable(waits):
    with DevOps("http://127.0.0.1:9/contoso", authorization, waits.append) as nobody, pytest.MonkeyPatch.context() as m:
        m.setenv(TOKEN_OF_A_PERSON, PAT)
        with pytest.raises(ServiceUnavailable):
            nobody.get("_apis/projects/AHClassifier")
    assert len(waits) == 3


MODEL = LiveModel(name="food", version=7, digest="d" * 64)


def test_a_webhook_starts_what_listens_when_it_is_signed_right(organisation, project_file, secret):
    organisation.secrets[project_file.webhook] = secret.get_secret_value()
    announce(project_file, MODEL, secret)
    (event,) = organisation.received
    assert event["type"] == "Microsoft.MachineLearningServices.ModelRegistered"
    assert event["data"] == {"ModelName": "food", "ModelVersion": "7"}


def test_a_webhook_with_another_secret_is_refused(organisation, project_file, secret):
    organisation.secrets[project_file.webhook] = "another"
    with pytest.raises(DevOpsRefused, match="checksum"):
        announce(project_file, MODEL, secret)
    assert organisation.received == []
