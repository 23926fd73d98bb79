"""Finds the model that is live, which a candidate is compared with."""

from infra.backend import backend, release_target
from infra.ports import RegisteredModel
from infra.settings import get_settings
from model.bundle.read import BundleRef
from tasks.framework.stage import Result, stage


class Champion(Result):
    """The model that is live in an environment, as its endpoint reports; None before the first release."""

    model: RegisteredModel | None


@stage("Find champion", "champion of {name}", always=True)
def find_champion(name: str, environments: tuple[str, ...]) -> Champion:
    """Ask the last environment's endpoint what it runs; the registry knows the rest.

    A model of another data set is no champion, and where nothing is released to, nobody has to be beaten.
    """
    settings = get_settings()
    live = release_target(environments[-1], settings).endpoint().status().live if environments else None
    if live is None or live.name != name:
        return Champion(model=None)
    return Champion(model=backend(settings).registry().get(live.name, live.version))


@stage("Find opponent", "opponent of {bundle.name}", always=True)
def find_opponent(champion: RegisteredModel | None, bundle: BundleRef) -> Champion:
    """Whom the bundle is compared with: the champion; or, if it is the champion itself, whom it had to beat then."""
    if champion is None or champion.digest != bundle.digest:
        return Champion(model=champion)
    beaten = champion.tags.get("judged_against")
    return Champion(model=backend(get_settings()).registry().get(champion.name, int(beaten)) if beaten else None)
