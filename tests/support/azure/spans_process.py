"""A flow run in a process of its own, as a worker on Azure has it."""

from tasks.framework.pipeline import pipeline
from tasks.framework.stage import Result, stage


@stage("Look", "look", always=True)
def look() -> Result:
    return Result()


@pipeline("looking", "looking")
def looking() -> Result:
    return look()


if __name__ == "__main__":
    looking()
