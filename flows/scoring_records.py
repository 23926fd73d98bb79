"""What endpoints answered, into the data lake."""

from tasks.framework.pipeline import pipeline
from tasks.operations.scoring_records import Collected, collect_records
from tasks.release.targets import environment_file


@pipeline("scoring-records", "scoring-records {environment}")
def scoring_records(environment: str) -> Collected:
    """Turn the sampled scoring records of an environment into Parquet, by day.

    Args:
        environment: Whose endpoint; its file says which share of the requests is recorded.
    """
    return collect_records(environment_file(environment).name)
