"""The processes that train together (ranks): who they are, how they find each other, what happens when one dies."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from model.errors import InvalidConfig

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

    from model.config import TrainingConfig

T = TypeVar("T")

PORT: Final = 29500
"""Where the ranks of several machines meet, unless MASTER_PORT says otherwise; torchrun's default."""
_MEET: Final = timedelta(minutes=15)
"""How long the first rank waits for the last: a pod's image may have to be pulled first."""


class RankLost(Exception):
    """Another process of this training has gone, or never came; what ended that one is its own error."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that train together: numbers from 0, and where the first one is met."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    host: str = "127.0.0.1"
    port: int | None = None

    @property
    def node(self) -> int:
        """The machine's number."""
        return (self.rank - self.local_rank) // self.local_world

    @property
    def nodes(self) -> int:
        """How many machines train together."""
        return self.world // self.local_world


def place_of(environ: Mapping[str, str], config: "TrainingConfig") -> tuple[Place, bool]:
    """This process's place, and whether somebody else starts every rank of this machine.

    As torchrun, Azure ML and Kubeflow name them: RANK, WORLD_SIZE and LOCAL_RANK where each rank is started from
    outside; else NODE_RANK where one process a machine is, as in an indexed Job; MASTER_ADDR is the first machine.

    Raises:
        InvalidConfig: Several machines, but no MASTER_ADDR.
    """
    host, port = environ.get("MASTER_ADDR", ""), int(environ.get("MASTER_PORT", PORT))
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environ.keys():
        rank, world, local_rank = (int(environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        local_world = int(environ.get("LOCAL_WORLD_SIZE", world // config.num_nodes))
        return Place(rank, world, local_rank, local_world, host or "127.0.0.1", port), True
    local_world = devices_of(config)
    if config.num_nodes == 1:
        return Place(0, local_world, 0, local_world), False
    if not host:
        raise InvalidConfig(
            f"`num_nodes` is {config.num_nodes}, but this process does not know the first of them (MASTER_ADDR).",
            next_step="Train on a pool that starts one pod a node (docs/gpu.md), or set `num_nodes` to 1.",
        )
    node = int(environ.get("NODE_RANK", 0))
    return Place(node * local_world, config.num_nodes * local_world, 0, local_world, host, port), False


def devices_of(config: "TrainingConfig") -> int:
    """How many devices of this machine train."""
    if config.devices != "auto":
        return config.devices
    if config.accelerator == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


class Ranks:
    """What one rank and the others tell each other. All methods are called by all ranks, in the same order."""

    def __init__(self, place: Place, group: "ProcessGroup | None" = None) -> None:
        self.place = place
        self._group = group

    @property
    def first(self) -> bool:
        """Whether this one writes, and tells who looks on."""
        return self.place.rank == 0

    def most(self, value: int) -> int:
        """The largest of the ranks' values."""
        if self._group is None:
            return value
        import torch

        # On the CPU, whatever trains: a GPU would have to finish its work first.
        most = torch.tensor(value)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(most)

    def of_first(self, value: T) -> T:
        """The first rank's value."""
        if self._group is None:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def environment(self) -> "ClusterEnvironment":
        """The same for Lightning, which would read the environment of the process, or start processes itself."""
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

        place = self.place

        class Environment(LightningEnvironment):
            creates_processes_externally = True

            def world_size(self) -> int:
                return place.world

            def global_rank(self) -> int:
                return place.rank

            def local_rank(self) -> int:
                return place.local_rank

            def node_rank(self) -> int:
                return place.node

            def set_world_size(self, size: int) -> None:
                assert size == place.world

            def set_global_rank(self, rank: int) -> None:
                assert rank == place.rank

        return Environment()


@contextmanager
def together(place: Place, store: "Store | None", *, gpu: bool) -> Iterator[Ranks]:
    """Meet the other ranks; part from them at the end.

    Args:
        place: Of this process.
        store: Where they meet; None for the address in `place`.
        gpu: Whether gradients are on GPUs (NCCL), else on CPUs (gloo).

    Raises:
        RankLost: Another rank has gone, or never came.
    """
    if place.world == 1:
        yield Ranks(place)
        return
    import torch
    from torch._C._distributed_c10d import TCPStore

    dist = torch.distributed
    try:
        if store is None:
            assert place.port is not None
            store = TCPStore(place.host, place.port, place.world, place.rank == 0, timeout=_MEET)
        dist.init_process_group(
            "nccl" if gpu else "gloo", store=store, rank=place.rank, world_size=place.world, timeout=_MEET
        )
        group = dist.new_group(backend="gloo") if gpu else dist.group.WORLD
        yield Ranks(place, group)
    except dist.DistError as error:
        raise _lost(place, error) from error
    except RuntimeError as error:
        if not _of_connection(error):
            raise
        raise _lost(place, error) from error
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):  # the others have gone already
                dist.destroy_process_group()


def _of_connection(error: Exception) -> bool:
    """Gloo has no error class of its own."""
    text = str(error)
    return any(sign in text for sign in ("gloo", "Connection reset", "Connection closed", "Broken pipe", "NCCL"))


def _lost(place: Place, error: Exception) -> RankLost:
    first: Any = (str(error).splitlines() or [type(error).__name__])[0]
    return RankLost(f"Rank {place.rank} of {place.world} lost the other processes of its training: {first}")
