"""Real scoring containers behind the bench: what Azure would run, runs here as processes of this machine.

The bench keeps what a container group, a web app, a DNS record or a Traffic Manager profile is told and runs nothing.
`ContainersWorld` watches it: for each container group and each place of a web app it starts the container's own program
with the variables that the group was given, puts the process behind the names that lead to it, and lets the bench tell
how the process fares. It needs no pytest:

    with benches.start() as bench:
        os.environ.update({**bench.env(), **benches.IDENTITY})
        ...provision...
        with ContainersWorld(bench, folder):
            ...release, switch, stop...
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infra.azure.endpoint.container_settings import PREFIX
from infra.settings import PROJECT
from tests.support.azure.divided_name import DividedName
from tests.support.azure.image_server import ImageServer

NOWHERE = "127.0.0.1:9"
"""Nothing listens there: the address of names that lead to nothing that runs."""
PROGRAM = (sys.executable, "-m", "infra.azure.inside_container.main")
PASS_SECONDS = 0.1
LOG_LINES = 400
GROUPS, SITES, ZONES = "/microsoft.containerinstance/containergroups/", "/microsoft.web/sites/", "/privatednszones/"
PROFILES, DEPLOYMENTS = "/trafficmanagerprofiles/", "/microsoft.resources/deployments/"


class Container:
    """One scoring container as a process."""

    def __init__(self, variables: dict[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = folder / f"log-{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AHC_")}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                PROGRAM,
                cwd=PROJECT,
                env={**kept, **variables, f"{PREFIX}PORT": str(self.port), "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._told = -1
        self._seen: tuple[int, int | None] = (-1, None)

    def stirred(self) -> bool:
        """Whether it wrote to its log or ended since this was asked last."""
        before, self._seen = self._seen, (self.log.stat().st_size, self.exit_code)
        return before != self._seen

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def news(self) -> str | None:
        """The end of its log, where there is more than last time."""
        size = self.log.stat().st_size
        if size == self._told:
            return None
        self._told = size
        return "".join(self.log.read_text().splitlines(keepends=True)[-LOG_LINES:])

    def end(self) -> None:
        self.process.terminate()

    def bury(self) -> None:
        try:
            self.process.wait(12)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class ContainersWorld:
    """Runs what the bench was told to run, from the first line of its block to the last.

    Args:
        bench: A `BenchClient`, with this process's environment pointing at it.
        folder: For logs and the containers' disks.
    """

    def __init__(self, bench: Any, folder: Path) -> None:
        self.containers: dict[str, Container] = {}
        """By the handle of what was deployed; those that failed as well."""
        self.registry = ImageServer()
        self.registry.add("scoring", "stable")
        self._bench = bench
        self._folder = folder
        self._leads: dict[str, str] = {}
        self._restarts: dict[str, int] = {}
        self._failed: set[str] = set()
        self._ended: list[Container] = []
        self._settings_of: dict[str, dict[str, str]] = {}
        self._rules_of: dict[str, list[dict[str, Any]]] = {}
        self._divided: dict[str, DividedName] = {}
        self._unwanted: set[str] = set()
        self._calls = -1
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="containers-world", daemon=True)

    def __enter__(self) -> Self:
        self.registry.__enter__()
        # A group runs once its process does.
        self._bench.lifecycle("aci-group", plan=["Pending"], hold=True)
        self._pass()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.registry.__exit__(None, None, None)
        for name in self._divided.values():
            name.close()
        for container in (*self.containers.values(), *self._ended):
            container.process.kill()
            container.bury()
        if self._failure is not None and error is None:
            raise self._failure

    def look_for_keys(self) -> None:
        """Let the containers read the vault now instead of within half a minute."""
        for container in list(self.containers.values()):
            if container.exit_code is None:
                container.process.send_signal(signal.SIGHUP)

    def running(self) -> list[str]:
        """Handles of the containers that run."""
        return [handle for handle, container in list(self.containers.items()) if container.exit_code is None]

    def _watch(self) -> None:
        while not self._over.wait(PASS_SECONDS):
            try:
                if self._unwanted or self._something_happened():
                    self._pass()
            except Exception as error:
                self._failure = error
                return

    def _pass(self) -> None:
        state: dict[str, dict[str, Any]] = self._bench.admin("state")
        leads = _known_names(state, self.registry.address)
        wanted: set[str] = set()
        calls = self._bench.admin("health")["calls"]
        asked = calls != self._calls or bool(self._unwanted)
        for key, group in _of(state, GROUPS):
            leads |= dict.fromkeys(_names_of_group(state, key, group), self._follow_group(group, wanted))
        for key, site in _of(state, SITES):
            if asked or key not in self._settings_of:
                self._settings_of[key] = self._ask("POST", f"{key}/config/appsettings/list")
                experiments = self._ask("GET", f"{key}/config/web").get("experiments") or {}
                self._rules_of[key] = experiments.get("rampUpRules") or []
                calls += 2
            leads |= self._follow_site(site, self._settings_of[key], wanted)
        self._calls = calls
        leads |= self._divided_sites(state, leads) | self._profiles(state, leads) | _aliases(state, leads)
        self._publish(leads)
        # Settings are read one after the other: what moved between two sites meanwhile is seen in neither.
        unwanted = set(self.containers) - wanted
        for handle in unwanted & self._unwanted:
            self._retire(handle)
        self._unwanted = unwanted - self._unwanted

    def _something_happened(self) -> bool:
        """Whether anyone asked the bench for anything, or a container said something or ended."""
        return self._bench.admin("health")["calls"] != self._calls or any(
            container.stirred() for container in self.containers.values()
        )

    def _publish(self, leads: dict[str, str]) -> None:
        changed = {name: address for name, address in leads.items() if self._leads.get(name) != address}
        if changed:
            self._bench.admin("backends", changed)
            self._leads |= changed

    # Container Instances.

    def _follow_group(self, group: dict[str, Any], wanted: set[str]) -> str:
        """Where it answers now."""
        properties, handle = group["properties"], (group.get("tags") or {}).get("ahc-handle", "")
        container = properties["containers"][0]["properties"]
        state = (properties.get("instanceView") or {}).get("state")
        view = container.get("instanceView") or {}
        if state == "Stopped" or (view.get("currentState") or {}).get("detailStatus") == "ImagePullBackOff":
            return NOWHERE
        # Azure starts a container again that ended; the bench does when it is asked to.
        before, restarts = self._restarts.get(handle, 0), view.get("restartCount", 0)
        self._restarts[handle] = restarts
        if handle in self.containers and (restarts != before or (handle in self._failed and state == "Running")):
            self._retire(handle)
        if handle not in self.containers:
            self.containers[handle] = Container(self._group_variables(group, container), self._folder / group["name"])
        wanted.add(handle)
        running = self.containers[handle]
        self._tell(f"^{group['name']}/", running)
        self._mirror(group["name"], handle, state)
        return running.address if running.exit_code is None else NOWHERE

    def _mirror(self, name: str, handle: str, state: str) -> None:
        code = self.containers[handle].exit_code
        if code is None and state == "Pending":
            # From now on: the bench begins a group's life anew whenever its tags change, and one that the world woke
            # only then could have been stopped in between.
            self._bench.lifecycle("aci-group", f"^{name}$", plan=["Running"], hold=True)
        elif code is not None and handle not in self._failed:
            self._tell(f"^{name}/", self.containers[handle])
            self._bench.lifecycle("aci-group", f"^{name}$", plan=["Pending"], exit_code=code, status="Failed")
            self._failed.add(handle)

    def _retire(self, handle: str) -> None:
        self._failed.discard(handle)
        self._ended.append(self.containers.pop(handle))
        self._ended[-1].end()

    def _group_variables(self, group: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
        # The bench forgets secure values, as Azure doesn't show them: they are in the request.
        calls = self._bench.calls(url=f"containerGroups/{group['name']}?")
        told = [call for call in calls if call["method"] == "PUT"]
        secure = {
            item["name"]: item["secureValue"]
            for item in told[-1]["body"]["properties"]["containers"][0]["properties"]["environmentVariables"]
            if "secureValue" in item
        }
        return {item["name"]: item.get("value", "") for item in container["environmentVariables"]} | secure

    # App Service.

    def _follow_site(self, site: dict[str, Any], settings: dict[str, str], wanted: set[str]) -> dict[str, str]:
        host = site["properties"]["defaultHostName"]
        handle = settings.get("AHC_HANDLE", "")
        if not handle or site["properties"]["state"] != "Running":
            return {host: NOWHERE}
        if handle not in self.containers:
            variables = {name: value for name, value in settings.items() if name.startswith(PREFIX)}
            self.containers[handle] = Container(variables, self._folder / handle)
        wanted.add(handle)
        running = self.containers[handle]
        self._tell(f"^{site['name']}$", running)
        return {host: running.address if running.exit_code is None else NOWHERE}

    def _divided_sites(self, state: dict[str, dict[str, Any]], leads: dict[str, str]) -> dict[str, str]:
        """Web apps with routing rules: a part of their clients goes to the slot."""
        found = {}
        for key, site in _of(state, SITES):
            if rules := self._rules_of.get(key):
                host, [rule] = site["properties"]["defaultHostName"], rules
                slot = leads.get(rule["actionHostName"], NOWHERE)
                percent = rule["reroutePercentage"]
                found[host] = self._divide(host, [(leads[host], 100 - percent), (slot, percent)], cookies=True)
        return found

    def _profiles(self, state: dict[str, dict[str, Any]], leads: dict[str, str]) -> dict[str, str]:
        """Traffic Manager profiles, of one or two weighted endpoints."""
        found = {}
        for _, profile in _of(state, PROFILES):
            endpoints = [item["properties"] for item in profile["properties"]["endpoints"]]
            name = f"{profile['properties']['dnsConfig']['relativeName']}.trafficmanager.net"
            weights = [(leads.get(item["target"], NOWHERE), item["weight"]) for item in endpoints]
            found[name] = self._divide(name, weights, cookies=False) if len(weights) > 1 else weights[0][0]
        return found

    def _divide(self, name: str, weights: list[tuple[str, float]], *, cookies: bool) -> str:
        if name not in self._divided:
            self._divided[name] = DividedName(cookies=cookies)
        divided = self._divided[name]
        divided.weights = tuple(weights)
        return divided.address

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        # Past the host of the control plane: a test's fault rules and calls that name that host don't see it.
        url = f"{self._bench.proxy}{path}?api-version=2023-12-01"
        request = urllib.request.Request(url, method=method, headers={"Authorization": "Bearer world"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            properties: dict[str, Any] = json.load(answer)["properties"]
        return properties

    def _tell(self, match: str, container: Container) -> None:
        news = container.news()
        if news is not None:
            self._bench.admin("logs", {"match": match, "content": news})


def _of(state: dict[str, dict[str, Any]], kind: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(key, item) for key, item in state.items() if kind in key]
    return [(key, item) for key, item in found if "/config/" not in key and "properties" in item]


def _known_names(state: dict[str, dict[str, Any]], registry: str) -> dict[str, str]:
    """Every name that a deployed environment may use: Azure's DNS knows them too, or says that they lead nowhere."""
    leads = {}
    for _, deployment in _of(state, DEPLOYMENTS):
        outputs = {name: item["value"] for name, item in (deployment["properties"].get("outputs") or {}).items()}
        if "registryLoginServer" in outputs:
            leads[outputs["registryLoginServer"]] = registry
        if not outputs.get("logAnalyticsCustomerId"):
            continue
        name, unique = deployment["name"], outputs["uniqueSuffix"]
        hosts = [f"{name}-{unique}.trafficmanager.net"]
        hosts += [f"{name}-{colour}-{unique}.{outputs['location']}.azurecontainer.io" for colour in ("blue", "green")]
        if zone := outputs.get("dnsZone"):
            hosts += [f"scoring{part}.{zone}" for part in ("", "-blue", "-green")]
        if app := outputs.get("webApp"):
            hosts += [f"{app}.azurewebsites.net", f"{app}-candidate.azurewebsites.net"]
        leads |= dict.fromkeys(hosts, NOWHERE)
    return leads


def _names_of_group(state: dict[str, dict[str, Any]], key: str, group: dict[str, Any]) -> list[str]:
    """Its public name or, in a virtual network, that of its A record.

    The bench gives all private groups one IP address: the colour in the record's name tells them apart.
    """
    address = group["properties"].get("ipAddress") or {}
    if address.get("type") != "Private":
        return [address["fqdn"]] if address.get("fqdn") else []
    record = f"/a/scoring-{key.rpartition('-')[2]}"
    records = [item for item, _ in _of(state, ZONES) if item.endswith(record) and _same_group(item, key)]
    return [f"{item.split('/')[-1]}.{item.split('/')[-3]}" for item in records]


def _same_group(one: str, other: str) -> bool:
    return one.partition("/providers/")[0] == other.partition("/providers/")[0]


def _aliases(state: dict[str, dict[str, Any]], leads: dict[str, str]) -> dict[str, str]:
    """Names that lead to another name: aliases in private zones."""
    found = {}
    for key, record in _of(state, ZONES):
        if "/cname/" in key:
            target = record["properties"]["cnameRecord"]["cname"]
            found[f"{key.split('/')[-1]}.{key.split('/')[-3]}"] = leads.get(target, NOWHERE)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
