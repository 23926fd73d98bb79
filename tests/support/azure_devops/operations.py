"""The operations of the stand-in of Azure DevOps: paths, versions, queries and bodies as Microsoft specifies them."""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.azure_devops.organisation import (
    APPROVAL,
    ISSUER,
    ORGANISATION,
    PROJECT,
    REPOSITORY,
    Json,
    Refused,
    StandIn,
)


@dataclass(frozen=True)
class Operation:
    method: str
    pattern: str
    version: str
    handle: Callable[["StandIn", Json, Any, dict[str, str]], Any]
    fields: frozenset[str] = frozenset()
    """That the specification's body has."""
    required: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()


def _listed(items: list[Json]) -> Json:
    return {"count": len(items), "value": items}


def _found(items: list[Json], key: Any, name: str = "id") -> Json:
    for item in items:
        if str(item[name]) == str(key):
            return item
    raise Refused(404, f"There is nothing with the {name} {key}.")


def _add(items: list[Json], item: Json, name: str | None = "name") -> Json:
    if name and any(old[name] == item[name] for old in items):
        raise Refused(409, f"{item[name]} already exists.")
    items.append(item)
    return item


def _replace(items: list[Json], key: Any, item: Json) -> Json:
    old = _found(items, key)
    items[items.index(old)] = item
    return item


def _named(items: str, parameter: str) -> Callable[[StandIn, Json, Any, dict[str, str]], Json]:
    def handle(state: StandIn, _: Json, __: Any, query: dict[str, str]) -> Json:
        wanted = query.get(parameter)
        return _listed([item for item in getattr(state, items) if wanted in (None, item["name"])])

    return handle


def _endpoint(state: StandIn, content: Json) -> Json:
    reference = content["serviceEndpointProjectReferences"][0]
    if reference["projectReference"]["id"] != PROJECT["id"]:
        raise Refused(400, "Project reference isn't known.")
    authorization = json.loads(json.dumps(content["authorization"]))
    parameters = authorization["parameters"]
    if content["type"] == "azurerm":
        if not {"tenantid", "serviceprincipalid"} <= set(parameters):
            raise Refused(400, "tenantid and serviceprincipalid are required")
        if not {"subscriptionId", "subscriptionName", "environment", "scopeLevel"} <= set(content["data"]):
            raise Refused(400, "data lacks required fields")
        parameters["workloadIdentityFederationIssuer"] = ISSUER
        parameters["workloadIdentityFederationSubject"] = f"sc://{ORGANISATION}/{PROJECT['name']}/{content['name']}"
    else:
        state.secrets[parameters["webhookname"]] = parameters.pop("secret")
    return {**content, "authorization": authorization, "isReady": True}


def _make_endpoint(state: StandIn, _: Json, content: Json, __: Any) -> Json:
    return _add(state.endpoints, {**_endpoint(state, content), "id": str(uuid.uuid4())})


def _change_endpoint(state: StandIn, parts: Json, content: Json, _: Any) -> Json:
    return _replace(state.endpoints, parts["id"], {**_endpoint(state, content), "id": parts["id"]})


def _make_group(state: StandIn, _: Json, content: Json, __: Any) -> Json:
    provider = content.get("providerData")
    if content["type"] == "AzureKeyVault":
        _found(state.endpoints, provider["serviceEndpointId"])
    return _add(state.groups, {**content, "id": state.number()})


def _make_check(state: StandIn, _: Json, content: Json, __: Any) -> Json:
    kind, place = content["type"]["id"], content["resource"]["id"]
    _found(state.environments, place)
    if any(item["type"]["id"] == kind and item["resource"]["id"] == place for item in state.checks):
        raise Refused(409, "A check of this kind is already there.")
    return _add(state.checks, _valid_check(state, {**content, "id": state.number()}), None)


def _valid_check(state: StandIn, check: Json) -> Json:
    if not 1 <= check["timeout"] <= 43_200:
        raise Refused(400, "timeout is out of range")
    if check["type"]["id"] == APPROVAL:
        for person in check["settings"]["approvers"]:
            if person["id"] not in state.identities.values():
                raise Refused(400, "An approver isn't known.")
    return check


def _checks(state: StandIn, _: Json, __: Any, query: dict[str, str]) -> Json:
    wanted = [item for item in state.checks if item["resource"]["id"] == query["resourceId"]]
    if query.get("$expand") != "settings":
        wanted = [{key: value for key, value in item.items() if key != "settings"} for item in wanted]
    return _listed(wanted)


def _make_queue(state: StandIn, _: Json, content: Json, __: Any) -> Json:
    _found(state.pools, content["pool"]["id"])
    return _add(state.queues, {**content, "id": state.number()})


def _make_definition(state: StandIn, _: Json, content: Json, __: Any) -> Json:
    _found(state.queues, content["queue"]["id"])
    if content["process"]["type"] != 2 or content["repository"]["id"] != REPOSITORY["id"]:
        raise Refused(400, "process or repository isn't valid")
    return _add(state.definitions, {**content, "id": state.number(), "revision": 1})


def _change_definition(state: StandIn, parts: Json, content: Json, _: Any) -> Json:
    if _found(state.definitions, parts["id"])["revision"] != content["revision"]:
        raise Refused(409, "The definition was changed by somebody else.")
    return _replace(state.definitions, parts["id"], {**content, "revision": content["revision"] + 1})


def _permissions(state: StandIn, parts: Json, _: Any, __: Any) -> Json:
    key = (parts["kind"], parts["id"])
    return {"resource": {"type": key[0], "id": key[1]}, "pipelines": state.permissions.get(key, [])}


def _allow(state: StandIn, parts: Json, content: Json, _: Any) -> Json:
    for item in content["pipelines"]:
        _found(state.definitions, item["id"])
        state.permissions.setdefault((parts["kind"], parts["id"]), []).append(item)
    return _permissions(state, parts, None, {})


def _identities(state: StandIn, _: Json, __: Any, query: dict[str, str]) -> Json:
    named = [(name, key) for name, key in state.identities.items() if name == query["filterValue"]]
    return _listed([{"id": key, "providerDisplayName": name} for name, key in named])


def _decide(state: StandIn, _: Json, content: list[Json], __: Any) -> Json:
    done = []
    for wanted in content:
        approval = _found(state.approvals, wanted["approvalId"])
        if approval["status"] != "pending":
            raise Refused(400, f"The approval is {approval['status']} already.")
        approval["status"] = wanted["status"]
        step = {"status": wanted["status"], "comment": wanted["comment"], "lastModifiedOn": "2026-11-24T10:00:00Z"}
        approval["steps"] = [{**step, "actualApprover": {"displayName": "id-ahc-flows", "uniqueName": "x"}}]
        done.append(approval)
        for records in state.timelines.values():
            for record in records:
                if record["id"] == approval["id"]:
                    record["state"] = "completed"
    return _listed(done)


def _builds(state: StandIn, _: Json, __: Any, query: dict[str, str]) -> Json:
    ids, states = query["definitions"].split(","), query["statusFilter"].split(",")
    return _listed([item for item in state.builds if str(item["definition"]["id"]) in ids and item["status"] in states])


def _approvals(state: StandIn, _: Json, __: Any, query: dict[str, str]) -> Json:
    wanted = [_found(state.approvals, key) for key in query["approvalIds"].split(",")]
    hidden = {"steps": []} if query.get("$expand") != "steps" else {}
    return _listed([{**item, **hidden} for item in wanted])


P = "(?P<project>[^/]+)/_apis/"
ENDPOINT = frozenset(
    {"administratorsGroup", "authorization", "createdBy", "data", "description", "groupScopeId", "id", "isReady"}
    | {
        "isShared",
        "name",
        "operationStatus",
        "owner",
        "readersGroup",
        "serviceEndpointProjectReferences",
        "type",
        "url",
    }
)
NEW_ENDPOINT = frozenset({"name", "type", "url", "authorization", "serviceEndpointProjectReferences"})
GROUP = frozenset({"description", "name", "providerData", "type", "variableGroupProjectReferences", "variables"})
CHECK = frozenset({"type", "settings", "timeout", "resource"})
NEW_DEFINITION = frozenset({"name", "path", "type", "process", "repository", "queue", "triggers"})
POLICY = frozenset({"isEnabled", "isBlocking", "type", "settings"})
CHECKS, PERMISSIONS = (
    f"{P}pipelines/checks/configurations",
    f"{P}pipelines/pipelinepermissions/(?P<kind>\\w+)/(?P<id>[^/]+)",
)
ENVIRONMENT_QUERY, CHECK_QUERY = frozenset({"name"}), frozenset({"resourceType", "resourceId", "$expand"})
PREVIEW = "7.1-preview.1"
OPERATIONS = [
    Operation("GET", "_apis/projects/(?P<project>[^/]+)", "7.1", lambda *_: PROJECT),
    Operation(
        "GET", f"{P}git/repositories/(?P<id>[^/]+)", "7.1", lambda s, p, *_: _found([REPOSITORY], p["id"], "name")
    ),
    Operation("GET", "_apis/identities", "7.1", _identities, query=frozenset({"searchFilter", "filterValue"})),
    Operation(
        "GET",
        f"{P}serviceendpoint/endpoints",
        "7.1",
        _named("endpoints", "endpointNames"),
        query=frozenset({"endpointNames"}),
    ),
    Operation("POST", "_apis/serviceendpoint/endpoints", "7.1", _make_endpoint, ENDPOINT, NEW_ENDPOINT),
    Operation("PUT", "_apis/serviceendpoint/endpoints/(?P<id>[^/]+)", "7.1", _change_endpoint, ENDPOINT, NEW_ENDPOINT),
    Operation(
        "GET",
        f"{P}distributedtask/variablegroups",
        "7.1",
        _named("groups", "groupName"),
        query=frozenset({"groupName"}),
    ),
    Operation(
        "POST",
        "_apis/distributedtask/variablegroups",
        "7.1",
        _make_group,
        GROUP,
        GROUP - {"description", "providerData"},
    ),
    Operation(
        "PUT",
        "_apis/distributedtask/variablegroups/(?P<id>\\d+)",
        "7.1",
        lambda s, p, c, _: _replace(s.groups, p["id"], {**c, "id": int(p["id"])}),
        GROUP,
        GROUP - {"description", "providerData"},
    ),
    Operation("GET", "_apis/distributedtask/pools", "7.1", _named("pools", "poolName"), query=frozenset({"poolName"})),
    Operation(
        "POST",
        "_apis/distributedtask/pools",
        "7.1",
        lambda s, _, c, __: _add(s.pools, {**c, "id": s.number()}),
        frozenset({"name", "poolType", "autoProvision"}),
        frozenset({"name"}),
    ),
    Operation(
        "GET", f"{P}distributedtask/queues", "7.1", _named("queues", "queueName"), query=frozenset({"queueName"})
    ),
    Operation(
        "POST",
        f"{P}distributedtask/queues",
        "7.1",
        _make_queue,
        frozenset({"name", "pool"}),
        frozenset({"name", "pool"}),
        frozenset({"authorizePipelines"}),
    ),
    Operation(
        "GET", f"{P}distributedtask/environments", "7.1", _named("environments", "name"), query=ENVIRONMENT_QUERY
    ),
    Operation(
        "POST",
        f"{P}distributedtask/environments",
        "7.1",
        lambda s, _, c, __: _add(s.environments, {**c, "id": s.number()}),
        frozenset({"name", "description"}),
        frozenset({"name"}),
    ),
    Operation("GET", CHECKS, PREVIEW, _checks, query=CHECK_QUERY),
    Operation("POST", CHECKS, PREVIEW, _make_check, CHECK, CHECK),
    Operation(
        "PATCH",
        f"{CHECKS}/(?P<id>\\d+)",
        PREVIEW,
        lambda s, p, c, _: _replace(s.checks, p["id"], _valid_check(s, c)),
        CHECK | {"id", "isDisabled"},
        CHECK,
    ),
    Operation("GET", PERMISSIONS, PREVIEW, _permissions),
    Operation(
        "PATCH",
        PERMISSIONS,
        PREVIEW,
        _allow,
        frozenset({"pipelines", "allPipelines", "resource"}),
        frozenset({"pipelines"}),
    ),
    Operation("GET", f"{P}build/definitions", "7.1", _named("definitions", "name"), query=frozenset({"name"})),
    Operation("GET", f"{P}build/definitions/(?P<id>\\d+)", "7.1", lambda s, p, *_: _found(s.definitions, p["id"])),
    Operation("POST", f"{P}build/definitions", "7.1", _make_definition, required=NEW_DEFINITION),
    Operation(
        "PUT",
        f"{P}build/definitions/(?P<id>\\d+)",
        "7.1",
        _change_definition,
        required=NEW_DEFINITION | {"id", "revision"},
    ),
    Operation(
        "GET",
        f"{P}policy/configurations",
        "7.1",
        lambda s, *_: _listed(s.policies),
        query=frozenset({"policyType", "scope"}),
    ),
    Operation(
        "POST",
        f"{P}policy/configurations",
        "7.1",
        lambda s, _, c, __: _add(s.policies, {**c, "id": s.number()}, None),
        POLICY,
        POLICY,
    ),
    Operation(
        "PUT",
        f"{P}policy/configurations/(?P<id>\\d+)",
        "7.1",
        lambda s, p, c, _: _replace(s.policies, p["id"], {**c, "id": int(p["id"])}),
        POLICY,
        POLICY,
    ),
    Operation("GET", f"{P}build/builds", "7.1", _builds, query=frozenset({"definitions", "statusFilter"})),
    Operation(
        "GET",
        f"{P}build/builds/(?P<id>\\d+)/timeline",
        "7.1",
        lambda s, p, *_: {"records": s.timelines.get(int(p["id"]), [])},
    ),
    Operation(
        "GET", f"{P}pipelines/approvals", "7.1", _approvals, query=frozenset({"approvalIds", "$expand", "state"})
    ),
    Operation("GET", f"{P}pipelines/approvals/(?P<id>[^/]+)", "7.1", lambda s, p, *_: _found(s.approvals, p["id"])),
    Operation(
        "PATCH",
        f"{P}pipelines/approvals",
        "7.1",
        _decide,
        frozenset({"approvalId", "status", "comment", "assignedApprover", "reassignTo"}),
        frozenset({"approvalId", "status"}),
    ),
]


def answer(state: StandIn, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
    state.calls.append((method, path))
    for operation in OPERATIONS:
        match = re.fullmatch(f"/{ORGANISATION}/{operation.pattern}", path)
        if match and operation.method == method:
            return _checked(state, operation, match.groupdict(), query, body)
    state.violations.append(f"{method} {path}: no such operation")
    raise Refused(404, "The controller for path was not found")


def _checked(state: StandIn, operation: Operation, parts: Json, query: dict[str, str], body: bytes) -> Any:
    if query.pop("api-version", None) != operation.version:
        state.violations.append(f"{operation.method} {operation.pattern}: wants api-version {operation.version}")
        raise Refused(400, "VssVersionNotSpecifiedException: no api-version, or one under preview")
    if parts.get("project") not in (None, PROJECT["name"], PROJECT["id"]):
        raise Refused(404, f"TF200016: The following project does not exist: {parts['project']}.")
    content = json.loads(body) if body else None
    given = set(content) if isinstance(content, dict) else set().union(*map(set, content or []))
    wrong = (given - operation.fields) if operation.fields else set()
    missing = operation.required - given
    if wrong or missing or set(query) - operation.query:
        unknown = wrong | (set(query) - operation.query)
        state.violations.append(f"{operation.method} {operation.pattern}: unknown {unknown}, missing {missing}")
        raise Refused(400, f"Value cannot be null. Parameter name: {', '.join(missing)}")
    return operation.handle(state, parts, content, query)
