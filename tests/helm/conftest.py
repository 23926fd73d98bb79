from tests.support.charts import manifests, server, worker

__all__ = ["manifests", "server", "worker"]
