"""Sample data sets in the platform's storage, where every pod reads them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources
from infra.azure.storage.blobs import blob_service, data_url
from infra.settings import Settings
from infra.stores.sample_data import SAMPLES, fetch

TRANSFERS = 8


def published_sample(name: str, settings: Settings) -> str:
    """The URL of a sample data set; the first that asks for it uploads it.

    Its bytes are always the same, so that several may upload at once; who is killed leaves no mark of completion.

    Raises:
        DownloadFailed: As `fetch` does.
    """
    account, folder = platform_resources(settings).storage_account, f"samples/{name}-{SAMPLES[name].version[:12]}"
    # Readers of a folder of images pass over names that begin with a dot.
    with azure_errors(f"publishing the sample data set {name}"):
        client = blob_service(account).get_container_client("data")
        complete = client.get_blob_client(f"{folder}/.complete")
        if not complete.exists():
            images = fetch(name, settings.path("samples"))

            def upload(path: Path) -> None:
                client.upload_blob(f"{folder}/{path.relative_to(images).as_posix()}", path.read_bytes(), overwrite=True)

            files = [path for path in images.rglob("*") if path.is_file() and not path.name.startswith(".")]
            with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="samples") as pool:
                list(pool.map(upload, files))
            complete.upload_blob(b"", overwrite=True)
    return data_url(account, "data", folder)
