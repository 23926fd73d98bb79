"""`ahc devops init` on a stand-in of Azure DevOps and the Azure bench: made once, checked, mended, continued."""

import json

import pytest

from deployments.cli.main import run
from infra.azure.access.clients import resource_client
from infra.azure.provisioning.federation import VERSION, PipelinesIdentity, pipelines_identity, read_trust
from infra.azure_devops.project_file import Group
from infra.azure_devops.setup import Azure, set_up
from infra.azure_devops.webhook import SECRET
from infra.config.environments import environment_names
from infra.errors import AccessDenied, ConfigurationError, DevOpsRefused, ServiceUnavailable
from infra.settings import Settings, get_settings
from tests.support.azure.bench import SUBSCRIPTION, azure_settings, calls
from tests.support.azure_devops.organisation import APPROVAL, ISSUER, LOCK, Fault

pytestmark = pytest.mark.azure
ENVIRONMENTS = ["ahc-platform", "ahc-test", "ahc-acceptance", "ahc-production"]


@pytest.fixture
def settings(bench, tmp_path) -> Settings:
    return azure_settings(tmp_path / "home")


@pytest.fixture
def identity(settings) -> PipelinesIdentity:
    """The pipelines' identity alone, which is all that most of these tests need of Azure."""
    client = resource_client(SUBSCRIPTION)
    client.resource_groups.create_or_update("rg-ahc-platform", {"location": "westeurope"})
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities"
    resource_id = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ahc-platform/providers/{kind}/id-ahc-pipelines"
    made = client.resources.begin_create_or_update_by_id(resource_id, VERSION, {"location": "westeurope"}).result()
    return PipelinesIdentity(
        resource_id=resource_id, client_id=made.properties["clientId"], tenant_id=made.properties["tenantId"]
    )


@pytest.fixture
def init(settings, identity, organisation, devops, project_file, secret):
    """Runs it as often as it is called, with changes of the file."""

    def run_it(*, dry_run: bool = False, **changed):
        changed = {"groups": {**project_file.groups, "ahc-names": Group(variables={"AHC_BACKEND": "azure"})}, **changed}
        azure = Azure(identity=identity, subscription_id=SUBSCRIPTION, vault="kv-ahc-platform")
        return set_up(devops, project_file.model_copy(update=changed), azure, settings, lambda: secret, dry_run=dry_run)

    return run_it


def names(changes, kind):
    return [change.name for change in changes if change.kind == kind]


def test_an_empty_project_gets_everything_and_a_second_run_nothing(init, organisation):
    changes = init()
    assert {change.action for change in changes} == {"create"}
    assert names(changes, "environment") == ENVIRONMENTS
    assert names(changes, "exclusive lock") == ENVIRONMENTS
    assert names(changes, "approval") == ["ahc-platform", "ahc-production"]
    assert names(changes, "pipeline") == [item["name"] for item in organisation.definitions]
    assert names(changes, "branch policy") == ["AHImgClassifier-ci on main"]
    written = len(organisation.written)
    assert init() == ()
    assert len(organisation.written) == written


def test_a_dry_run_shows_the_same_and_writes_nowhere(init, organisation, bench):
    shown = init(dry_run=True)
    assert organisation.written == []
    assert [call for call in calls(bench, "PUT") if "federatedIdentityCredentials" in call["url"]] == []
    done = init()
    assert shown == done


def test_the_identity_trusts_what_the_connection_shows_and_no_secret_is_anywhere(
    init, organisation, identity, settings
):
    init()
    connection = next(item for item in organisation.endpoints if item["type"] == "azurerm")
    assert connection["authorization"]["scheme"] == "WorkloadIdentityFederation"
    assert set(connection["authorization"]["parameters"]) == {
        "tenantid",
        "serviceprincipalid",
        "workloadIdentityFederationIssuer",
        "workloadIdentityFederationSubject",
    }
    trust = read_trust(identity, "azure-devops-ahc-azure", settings)
    assert trust is not None
    assert (trust.issuer, trust.subject) == (ISSUER, "sc://contoso/AHClassifier/ahc-azure")


def test_a_connection_made_anew_is_trusted_again(init, organisation, identity, settings):
    init()
    organisation.endpoints[0]["authorization"]["parameters"]["workloadIdentityFederationSubject"] = "sc://other"
    (change,) = init()
    assert (change.kind, change.action, change.fields) == ("federated credential", "update", ("subject",))
    trust = read_trust(identity, "azure-devops-ahc-azure", settings)
    assert trust is not None
    assert trust.subject == "sc://other"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_killed_at_any_request_the_next_run_completes(init, organisation, method):
    """Each run is cut off at its next new write, before or after the plan, until one comes through."""
    runs = 0
    while True:
        organisation.faults[:] = [Fault(method, "/", 403, after_work=runs % 2 == 0)]
        organisation.calls.clear()
        try:
            init()
        except AccessDenied:
            runs += 1
            continue
        break
    assert runs > 3
    organisation.faults.clear()
    assert init() == ()
    for things in (organisation.endpoints, organisation.groups, organisation.environments, organisation.definitions):
        found = [item["name"] for item in things]
        assert len(found) == len(set(found))


def test_the_approval_says_what_the_environment_file_says(init, organisation):
    init()
    place = next(item for item in organisation.environments if item["name"] == "ahc-production")
    approval = next(
        c for c in organisation.checks if c["resource"]["id"] == str(place["id"]) and c["type"]["id"] == APPROVAL
    )
    assert approval["timeout"] == 72 * 60
    assert approval["settings"]["requesterCannotBeApprover"] is True
    assert approval["settings"]["minRequiredApprovers"] == 1
    assert approval["settings"]["approvers"] == [{"id": organisation.identities["[AHClassifier]\\Contributors"]}]


def test_the_identity_that_mirrors_is_an_approver_too(init, organisation):
    init(mirror="id-ahc-flows")
    approvals = [item for item in organisation.checks if item["type"]["id"] == APPROVAL]
    assert all({"id": organisation.identities["id-ahc-flows"]} in item["settings"]["approvers"] for item in approvals)


def test_what_people_changed_is_shown_and_mended(init, organisation):
    init()
    approval = next(item for item in organisation.checks if item["type"]["id"] == APPROVAL)
    approval["timeout"], approval["settings"]["approvers"] = 5, []
    organisation.checks[:] = [item for item in organisation.checks if item["type"]["id"] != LOCK]
    organisation.definitions[0]["process"]["yamlFilename"] = "other.yml"
    organisation.policies[0]["isBlocking"] = False
    group = next(item for item in organisation.groups if item["type"] == "Vsts")
    group["variables"]["AHC_BACKEND"]["value"] = "local"
    group["variables"]["THEIRS"] = {"value": "stays"}
    changes = {(change.kind, change.action, change.fields) for change in init()}
    assert changes == {
        ("approval", "update", ("approvers", "timeout")),
        ("exclusive lock", "create", ()),
        ("pipeline", "update", ("file",)),
        ("branch policy", "update", ("blocking",)),
        ("variable group", "update", ("AHC_BACKEND",)),
    }
    assert init() == ()
    assert (
        next(item for item in organisation.groups if item["type"] == "Vsts")["variables"]["THEIRS"]["value"] == "stays"
    )


def test_an_approval_that_no_file_asks_for_is_left_with_a_hint(init, organisation):
    init()
    place = next(item for item in organisation.environments if item["name"] == "ahc-test")
    approval = next(item for item in organisation.checks if item["type"]["id"] == APPROVAL)
    organisation.checks.append({**approval, "id": 4711, "resource": {"type": "environment", "id": str(place["id"])}})
    (change,) = init()
    assert (change.kind, change.name, change.action) == ("approval", "ahc-test", "differs")
    assert "gates.approval" in change.hint
    assert any(item["id"] == 4711 for item in organisation.checks)


def test_pipelines_may_use_what_they_need_and_only_that(init, organisation):
    init()
    by_name = {item["name"]: item["id"] for item in organisation.definitions}
    production = next(item for item in organisation.environments if item["name"] == "ahc-production")
    webhook = next(item for item in organisation.endpoints if item["type"] == "incomingwebhook")
    allowed = {item["id"] for item in organisation.permissions["environment", str(production["id"])]}
    assert by_name["AHImgClassifier-ci"] not in allowed
    assert by_name["AHImgClassifier-cd"] in allowed
    assert [item["id"] for item in organisation.permissions["endpoint", webhook["id"]]] == [
        by_name["AHImgClassifier-cd"]
    ]


def test_machines_of_ones_own_are_a_pool_and_a_queue_of_it(init, organisation):
    changes = init(pool="ahc-agents")
    assert names(changes, "agent pool") == names(changes, "agent queue") == ["ahc-agents"]
    queue = next(item for item in organisation.queues if item["name"] == "ahc-agents")
    assert all(item["queue"]["id"] == queue["id"] for item in organisation.definitions)
    assert len(organisation.permissions["queue", str(queue["id"])]) == len(organisation.definitions)
    assert init(pool="ahc-agents") == ()


def test_secrets_stay_in_the_key_vault(init, organisation, secret):
    init()
    group = next(item for item in organisation.groups if item["type"] == "AzureKeyVault")
    assert group["providerData"]["vault"] == "kv-ahc-platform"
    assert all("value" not in item for item in group["variables"].values())
    assert secret.get_secret_value() not in json.dumps(organisation.endpoints)


def test_an_approver_who_is_nobody_is_named(init):
    with pytest.raises(DevOpsRefused, match=r"`nobody@contoso.com` is to approve.*nobody is"):
        init(approvers=("nobody@contoso.com",))


def test_a_thing_of_another_kind_under_the_same_name_is_not_touched(init, organisation):
    organisation.endpoints.append({"id": "1", "name": "ahc-azure", "type": "generic"})
    with pytest.raises(DevOpsRefused, match="of the type generic, not azurerm"):
        init()
    assert organisation.written == []


def test_a_pipeline_that_names_an_unknown_environment_changes_nothing(init, organisation, project_file):
    pipelines = {"cd": next(iter(project_file.pipelines.values())).model_copy(update={"environments": ("prodution",)})}
    with pytest.raises(ConfigurationError, match="did you mean `production`"):
        init(pipelines=pipelines)
    assert organisation.calls == []


def test_an_outage_in_the_middle_is_told_as_such(init, organisation):
    organisation.faults.append(Fault("GET", "/environments", 503, times=9))
    with pytest.raises(ServiceUnavailable):
        init()


@pytest.fixture
def shell(cloud, organisation, monkeypatch):
    """A shell with the settings of the platform on the bench."""
    monkeypatch.setenv("AHC_HOME", str(cloud.home))
    monkeypatch.setenv("AHC_BACKEND", "azure")
    monkeypatch.setenv("AHC_AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_the_command_shows_makes_and_is_content(shell, organisation, capsys):
    command = ["devops", "init", "--organisation", organisation.address]
    assert run([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "create  environment ahc-production" in shown
    assert "changes would be made." in shown
    assert organisation.written == []
    assert pipelines_identity(get_settings()).client_id
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["applied"] is True
    assert run(command) == 0
    assert capsys.readouterr().out == "Nothing to do: the project has what the files say.\n"


def test_the_secret_of_the_webhook_is_made_in_the_vault_and_never_shown(shell, organisation, capsys):
    from infra.azure.storage.key_vault import read_secret

    run(["devops", "init", "--organisation", organisation.address])
    made = read_secret("https://kv-ahc-platform.vault.azure.net", SECRET).get_secret_value()
    assert organisation.secrets == {"ahc-model-registered": made}
    assert made not in capsys.readouterr().out


def test_without_an_organisation_the_command_says_where_it_comes_from(shell, capsys):
    assert run(["devops", "init"]) == ConfigurationError.exit_code
    assert "deployments/devops.yaml" in capsys.readouterr().err


def test_every_environment_file_has_an_environment(shell):
    assert [f"ahc-{name}" for name in environment_names(get_settings().environments)] == ENVIRONMENTS[1:]
