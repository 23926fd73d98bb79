"""What endpoints answered, into the data lake."""

from tasks.environments import environment_file
from tasks.pipeline import pipeline
from tasks.records import Collected, collect_records


@pipeline("scoring-records", "scoring-records {environment}")
def scoring_records(environment: str) -> Collected:
    """Turn the sampled scoring records of an environment into Parquet, by day.

    Args:
        environment: Whose endpoint; its file says which share of the requests is recorded.
    """
    return collect_records(environment_file(environment).name)
