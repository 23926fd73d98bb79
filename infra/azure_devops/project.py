"""One project of Azure DevOps: where its things are."""

from dataclasses import dataclass
from typing import Final

from infra.azure_devops.client import DevOps, Json
from infra.errors import DevOpsRefused

NOT_FOUND: Final = 404


@dataclass(frozen=True)
class Project:
    """A project that is there."""

    devops: DevOps
    id: str
    name: str

    def path(self, rest: str) -> str:
        """The path of an operation of this project."""
        return f"{self.name}/_apis/{rest}"

    def find(self, operation: str, parameter: str, name: str) -> Json | None:
        """The element with this name of what an operation lists, asked for it by this parameter; None without one."""
        return named(self.devops.values(self.path(operation), **{parameter: name}), name)

    @property
    def reference(self) -> Json:
        """How bodies name it."""
        return {"id": self.id, "name": self.name}


def named(items: list[Json], name: str) -> Json | None:
    """The element with this name, in whatever case; None where there is none."""
    return next((item for item in items if item["name"].casefold() == name.casefold()), None)


def find_project(devops: DevOps, name: str) -> Project:
    """Raises: DevOpsRefused, where the organisation has none of this name that this identity may see."""
    try:
        project = devops.get(f"_apis/projects/{name}")
    except DevOpsRefused as error:
        if error.status != NOT_FOUND:
            raise
        raise DevOpsRefused(
            f"{devops.organisation} has no project `{name}`, or this identity may not see it.",
            status=NOT_FOUND,
            next_step="Make the project (`az devops project create`), or correct `project` in deployments/devops.yaml.",
        ) from error
    return Project(devops=devops, id=project["id"], name=project["name"])


def find_repository(project: Project, name: str) -> Json:
    """Raises: DevOpsRefused, where the project has no such repository."""
    try:
        return project.devops.get(project.path(f"git/repositories/{name}"))
    except DevOpsRefused as error:
        if error.status != NOT_FOUND:
            raise
        raise DevOpsRefused(
            f"The project {project.name} has no repository `{name}`.",
            status=NOT_FOUND,
            next_step="Make it and push this code (`az repos create`, `git push`), or correct `repository` in "
            "deployments/devops.yaml.",
        ) from error
