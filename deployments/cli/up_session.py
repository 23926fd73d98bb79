"""One `ahc up` from start to end: platform, deployments, endpoints, data, lifecycle, summary."""

import asyncio
import webbrowser
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from deployments.display.colours import show
from deployments.display.lifecycle_end import as_summary, failure_view, summary_view
from deployments.display.terminal_tree import Display, PlainDisplay, display
from deployments.runs.follow import follow
from deployments.runs.parameters import parse_parameters
from deployments.runs.recovery import continue_interrupted, forget_scheduled, mark_interrupted
from deployments.runs.start import find_deployment
from deployments.server.apply import load_entrypoint
from deployments.server.connection import connect, server, ui_link
from deployments.server.deploy import deploy_files
from deployments.server.deployment_files import read_project
from infra.config.environments import environment_names
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.local.platform.platform import Platform
from infra.ports import Endpoint
from infra.runs.faults import read_fault
from infra.runs.starter_tag import started_by_tags
from infra.settings import Settings
from tasks.framework.error_table import exit_code
from tasks.framework.failure_card import failure_card

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

LIFECYCLE: Final = "lifecycle/local"
RECONCILIATION: Final = "reconciliation/local"


class Session:
    """One call of `ahc up`."""

    def __init__(self, settings: Settings, file: Path, *, once: bool, open_browser: bool) -> None:
        self._settings = settings
        self._file = file
        self._once = once
        self._open_browser = open_browser
        self._shown: Display = PlainDisplay()
        self._stopped_before: list[Endpoint] = []

    async def run(self, source: str, pairs: list[str]) -> int:
        """Answers the exit code of the lifecycle.

        Raises:
            AlreadyRunning, PortInUse, PlatformUnhealthy, ConfigurationError, DownloadFailed.
        """
        with Platform(self._settings, self._tell) as platform:
            watch = asyncio.create_task(self._keep_alive(platform))
            try:
                with display() as self._shown:
                    run, link = await _first(self._lifecycle(platform, source, pairs), watch)
                self._shown = PlainDisplay()
                await self._conclude(run, link)
                if self._once:
                    show("Endpoints that this started end with it; `ahc up` without --once keeps them.")
                else:
                    show("Everything stays up. Ctrl-C stops it.")
                    await _until_interrupted(watch)
                assert run.state is not None
                return exit_code(run.state.type.value, run.state.name or "")
            finally:
                self._tell("Stopping.")
                watch.cancel()
                await self._leave()

    def _tell(self, sentence: str) -> None:
        self._shown.tell(sentence)

    async def _lifecycle(self, platform: Platform, source: str, pairs: list[str]) -> tuple["FlowRun", str]:
        # Here, before any thread needs it: Prefect's modules import each other, and two threads that begin at different
        # ends of that would wait for each other for ever.
        import prefect.flows  # noqa: F401

        # Only the deployments need the server: everything else uses the time in which it starts.
        given, *_ = await asyncio.gather(
            asyncio.to_thread(self._parameters, source, pairs),
            asyncio.to_thread(fetch_sample, source, self._settings),
            asyncio.to_thread(self._find_endpoints),
            self._deploy(platform),
        )
        async with connect(self._settings) as client:
            await self._recover(client)
            await asyncio.to_thread(self._start_endpoints)
            run, since = await self._begin(client, given)
            link = ui_link("runs/flow-run", run.id, str(client.api_url))
            self._tell(f"Run     {link}")
            if self._open_browser:
                webbrowser.open(link)
            run, _ = await asyncio.gather(
                follow(client, run.id, see=self._shown.see, tell=self._tell, since=since),
                fill_block_catalogue(client),
            )
        return run, link

    def _parameters(self, source: str, pairs: list[str]) -> dict[str, Any]:
        """What the lifecycle was asked for, checked against its flow; ConfigurationError names what is wrong."""
        from prefect.utilities.callables import parameter_schema

        for entry in read_project(self._file):
            flow = load_entrypoint(entry.entrypoint)
            if f"{flow.name}/{entry.name}" == LIFECYCLE:
                schema = parameter_schema(flow).model_dump_for_openapi()
                return parse_parameters([f"data.source={source}", *pairs], None, schema, entry.parameters)
        raise ConfigurationError(f"{self._file} has no deployment {LIFECYCLE}.")

    async def _deploy(self, platform: Platform) -> None:
        began = monotonic()
        await asyncio.to_thread(platform.wait_until_ready)
        self._tell(
            f"Prefect {self._settings.prefect_ui_url} (ready after {monotonic() - began:.1f} s)\n"
            f"MLflow  {self._settings.mlflow_url} (starts when you open it)"
        )
        await deploy_files(self._settings, self._file)

    async def _recover(self, client: "PrefectClient") -> None:
        for run in await mark_interrupted(client, "The platform ended while this ran."):
            self._tell(f"{run.name} was interrupted when the platform ended; it can go on from its last step.")
        await forget_scheduled(client, RECONCILIATION)

    async def _begin(self, client: "PrefectClient", given: dict[str, Any]) -> tuple["FlowRun", datetime]:
        """Continue the interrupted lifecycle that was asked for the same, or start one."""
        deployment = await find_deployment(client, LIFECYCLE)
        since = datetime.now(UTC)
        run = await continue_interrupted(client, deployment.id, {**deployment.parameters, **given})
        if run is None:
            run = await client.create_flow_run_from_deployment(deployment.id, parameters=given, tags=started_by_tags())
        return run, since

    async def _conclude(self, run: "FlowRun", link: str) -> None:
        state = run.state
        assert state is not None
        if state.is_completed():
            summary = as_summary(await state.aresult(raise_on_failure=False))
            show(summary_view(summary, self._settings, link) if summary else str(state.name))
            return
        card = await asyncio.to_thread(self._card, run)
        logs = str(self._settings.home / "logs")
        show(failure_view(state.name or "Failed", state.message or "", card, link, logs))

    def _card(self, run: "FlowRun") -> str | None:
        from deployments.runs.queries import steps

        with server(self._settings) as client:
            fault = read_fault(client, [run.id, *_flow_ids(steps(client, run.id))])
        return failure_card(fault, str(run.id)) if fault else None

    # --- endpoints ----------------------------------------------------------------------------------------------

    def _find_endpoints(self) -> None:
        """Remember which endpoints of this machine don't run: those that do were there before, and stay."""
        from infra.backend import release_target

        for name in environment_names(self._settings.environments):
            if release_target(name, self._settings).place != "local":
                continue
            endpoint = release_target(name, self._settings).endpoint()
            if endpoint.status().state == "stopped":
                self._stopped_before.append(endpoint)

    def _start_endpoints(self) -> None:
        for endpoint in self._stopped_before:
            status = endpoint.start()
            if status.state == "running" and status.live is not None:
                self._tell(f"Endpoint {endpoint.environment} {status.url} serves {status.live.label}")

    async def _leave(self) -> None:
        """Leave nothing behind that claims to run: runs, and the endpoints that were not there before."""
        await asyncio.gather(self._mark_interrupted(), *(asyncio.to_thread(item.stop) for item in self._stopped_before))

    async def _mark_interrupted(self) -> None:
        from infra.errors import ServerUnreachable

        try:
            async with connect(self._settings) as client:
                await mark_interrupted(client, "`ahc up` was stopped while this ran; the next one lets it go on.")
                await forget_scheduled(client, RECONCILIATION)
        except ServerUnreachable:
            return  # it never came up, or it died: the next start marks them

    async def _keep_alive(self, platform: Platform) -> None:
        while True:
            await asyncio.sleep(1)
            await asyncio.to_thread(platform.check)


async def _until_interrupted(watch: "asyncio.Task[None]") -> None:
    """Wait for Ctrl-C. Raises: PlatformUnhealthy, where the platform ends by itself."""
    try:
        await watch
    except asyncio.CancelledError:
        return


async def _first(work: Awaitable[Any], watch: "asyncio.Task[None]") -> Any:
    """The result of `work`, unless the platform dies before."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await watch
        return await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _flow_ids(tree: Any) -> list[Any]:
    from uuid import UUID

    ids = []
    for step in tree:
        if step.kind == "flow":
            ids += [UUID(step.id), *_flow_ids(step.steps)]
    return ids


def fetch_sample(source: str, settings: Settings) -> None:
    """Download the sample data set that `source` names; anything else is taken as it is.

    Raises:
        ConfigurationError: It is neither a sample data set nor something that exists.
        DownloadFailed.
    """
    if "://" in source or Path(source).exists():
        return
    from infra.stores.sample_data import SAMPLES, fetch

    if source not in SAMPLES:
        raise ConfigurationError(
            f"There is no file, folder or sample data set `{source}`: {nearest(source, [*SAMPLES])}"
        )
    fetch(source, settings.path("samples"))


async def fill_block_catalogue(client: "PrefectClient") -> None:
    """Register Prefect's own block types, which the server left out to answer sooner."""
    await client.request("POST", "/block_types/install_system_block_types")
