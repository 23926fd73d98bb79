from tests.helm.fixtures import manifests, server, worker

__all__ = ["manifests", "server", "worker"]
