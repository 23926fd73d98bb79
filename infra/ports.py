"""What the flows need from the outside world, as narrow Protocols in domain words.

Each port has one adapter for one machine (`infra/local`) and one for Azure (`infra/azure`), held to the same
contract tests (`tests/contract`). Files and blobs need no port: they are fsspec URLs.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, SecretStr

from model.values import DataVersion, Frozen


class LiveModel(Frozen):
    """The model that an endpoint itself reports to run."""

    name: str
    version: int
    digest: str

    @property
    def label(self) -> str:
        return f"{self.name} v{self.version}"


class RegisteredModel(Frozen):
    """One version of a model in the registry."""

    name: str
    version: int = Field(ge=1)
    digest: str = Field(description="sha256 over the bundle, as 64 hex digits.")
    uri: str = Field(description="Where the registry keeps the bundle.")
    created: datetime
    tags: dict[str, str] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.as_live.label

    @property
    def as_live(self) -> LiveModel:
        """As an endpoint reports it where it is live."""
        return LiveModel(name=self.name, version=self.version, digest=self.digest)


class Candidate(Frozen):
    """A version that runs beside the live one and takes no traffic yet."""

    environment: str
    model: LiveModel
    url: str = Field(description="Where this candidate alone answers, for its smoke test.")
    handle: str = Field(description="The adapter's own name for it (a process, a container group).")


RunningRole = Literal["live", "previous", "candidate"]


class RunningVersion(Frozen):
    """A version that an endpoint runs now, whether it takes traffic or not."""

    role: RunningRole
    model: LiveModel
    url: str = Field(description="Where this version alone answers.")
    cookie: str = Field(default="", description="To send there, where the address alone leads to the candidate too.")


class EndpointStatus(Frozen):
    """What an environment's endpoint looks like from outside."""

    environment: str
    url: str
    state: Literal["running", "stopped", "unhealthy"]
    live: LiveModel | None = None
    previous: LiveModel | None = Field(default=None, description="Kept warm for a rollback.")
    detail: str = ""


class ModelRegistry(Protocol):
    """Model versions and which of them is champion of which environment."""

    def register(
        self, bundle: Path, *, name: str, digest: str, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> RegisteredModel:
        """Store a bundle as the next version of `name`; with a digest that is there already, answer that version."""
        ...

    def get(self, name: str, version: int) -> RegisteredModel:
        """Raises: ModelNotFound."""
        ...

    def versions(self, name: str) -> list[RegisteredModel]:
        """Newest first; empty for an unknown name."""
        ...

    def download(self, model: RegisteredModel, directory: Path) -> Path:
        """A local copy of the bundle's bytes, not verified yet; answers its folder."""
        ...

    def tag(self, model: RegisteredModel, tags: Mapping[str, str]) -> None: ...

    def names(self) -> list[str]:
        """All model names that the registry knows, sorted."""
        ...

    def champion(self, name: str, environment: str) -> RegisteredModel | None: ...

    def set_champion(self, model: RegisteredModel, environment: str) -> None: ...


class Endpoint(Protocol):
    """The scoring endpoint of one environment: deploy beside, switch, roll back."""

    @property
    def environment(self) -> str: ...

    def status(self) -> EndpointStatus:
        """Ask the endpoint itself. Never raises for one that is down."""
        ...

    def deploy(self, bundle: Path, model: LiveModel) -> Candidate:
        """Start `model` beside the live one; returns when it is ready. A candidate of before is replaced.

        Raises: BundleCorrupt (by exit), EndpointUnreachable, PortInUse.
        """
        ...

    def switch(self, candidate: Candidate) -> LiveModel:
        """All new connections go to the candidate; the live one finishes its own and stays warm as previous."""
        ...

    def discard(self, candidate: Candidate) -> None:
        """End the candidate; what it had of the traffic goes to the live one. One that is gone is fine."""
        ...

    def preflight(self) -> Sequence[str]:
        """What would make a deployment fail here now, each with its fix; empty where nothing is in its way."""
        ...

    def versions(self) -> Sequence[RunningVersion]:
        """Every version that runs now; raises as `deploy` does where it can't be asked."""
        ...

    def split(self, candidate: Candidate, share: float) -> None:
        """Let the candidate take this share (0 to 0.5) of new connections, the live one the rest; 0 ends it.

        A switch or discard ends it as well, and so does a restart of the endpoint.

        Raises:
            ConfigurationError: This kind of endpoint can't divide traffic.
            CandidateFailed: The candidate is gone.
        """
        ...

    def rollback(self) -> LiveModel:
        """The warm previous version takes over again.

        Raises: NothingToRollBackTo.
        """
        ...

    def refresh_keys(self) -> None:
        """Let every running version accept the keys that the secret store holds now, without losing a request."""
        ...

    def logs(self, lines: int = 50) -> Sequence[str]: ...

    def stop(self) -> None:
        """Stop serving; what was live is remembered for `start`."""
        ...

    def start(self) -> EndpointStatus:
        """Serve again what was live before `stop` or a crash; does nothing where it runs or nothing was live."""
        ...


class ExperimentTracker(Protocol):
    """Curves, parameters and files of one training, under one run id, that survives a restart."""

    def start(self, key: str, *, experiment: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open the run of this training key, or reopen it; answers the tracker's run id."""
        ...

    def log(self, run_id: str, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_files(self, run_id: str, directory: Path) -> None: ...

    def end(self, run_id: str, *, succeeded: bool) -> None: ...

    def link(self, run_id: str) -> str:
        """Where a person looks at the run."""
        ...


class DataCatalogue(Protocol):
    """The data versions, where people look for them."""

    def register(self, data: DataVersion) -> str:
        """List a data version, once; answers where a person looks at it."""
        ...


class SharedModels(Protocol):
    """The registry that an environment shares its versions to, for other teams and subscriptions."""

    def share(self, model: RegisteredModel, bundle: Path) -> str:
        """See that the registry has this version with these bytes, once; answers where a person looks at it.

        Raises:
            ConfigurationError: There is no such registry, or it has the version with other bytes.
        """
        ...


class FolderStore(Protocol):
    """Folders that outlive the machine on which they were made, such as trained weights and bundles."""

    def publish(self, folder: Path, name: str, *, files: Sequence[str] = ()) -> str:
        """Keep a copy under `name`, which stands for its content; answers a URL. What is there is not copied again.

        Args:
            folder: It may hold further folders, and nobody writes into it any more.
            name: May have slashes.
            files: Only these of its files are needed, named from the folder; all, where none is named.

        Raises:
            ModelNotFound: The folder, or one of `files`, is not there.
        """
        ...

    def fetch(self, url: str) -> Path:
        """The folder of this URL on this machine; of a published one, a whole copy or none.

        Raises: ModelNotFound where nothing is published there.
        """
        ...


class SecretStore(Protocol):
    """Named secrets."""

    def get(self, name: str) -> SecretStr:
        """Raises: AccessDenied where it is missing or not readable."""
        ...

    def ensure(self, name: str) -> SecretStr:
        """The secret of this name; made from 32 random bytes where there is none."""
        ...

    def put(self, name: str, value: SecretStr) -> None:
        """Store a new value; the old one is no longer answered."""
        ...

    def curl_header(self, environment: str) -> str:
        """What follows curl's `-H` in a shell to send the environment's key, without showing it."""
        ...


class Notice(Frozen):
    """One message; a hint to look, since the registry is the truth."""

    id: str
    receipt: str = Field(description="What shows that this reader has it now.")
    text: str = Field(description="As it lies in the queue.")
    taken: int = Field(ge=1, description="How often it was taken, with this time.")
    name: str | None = Field(default=None, description="Of the model; None where the message can't be read.")
    version: int | None = None


class Notices(Protocol):
    """The queue. What is taken and not ended comes back after some minutes."""

    def take(self) -> Sequence[Notice]:
        """Those that nobody else has, at most 32, oldest first."""
        ...

    def end(self, notice: Notice) -> None:
        """It did its work. One that is gone, or that another reader has by now, is fine."""
        ...

    def put_aside(self, notice: Notice) -> None:
        """Keep it where a person finds it, and let nobody take it again."""
        ...
