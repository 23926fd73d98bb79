"""Pages and pictures of reports: kept where every machine of the backend finds them."""

import fsspec

from infra.backend import backend
from infra.settings import get_settings


def keep_report(folder: str, name: str, content: bytes) -> str:
    """Store a page or picture as `reports/FOLDER/NAME`; answers its path, or its URL where the data is remote."""
    uri = f"{backend(get_settings()).data_root()}/reports/{folder}/{name}"
    filesystem, path = fsspec.core.url_to_fs(uri)
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    filesystem.pipe_file(path, content)
    return uri


def read_report(uri: str) -> bytes:
    """The bytes of what was kept."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    return bytes(filesystem.cat_file(path))


def how_to_open(uri: str) -> str:
    """For people, in Markdown: the path, or the command that brings what a browser can't open by its URL."""
    if "://" not in uri:
        return f"`{uri}`"
    place, _, path = uri.partition("://")[2].partition("/")
    container, _, host = place.partition("@")
    blob = f"https://{host.replace('.dfs.', '.blob.')}/{container}/{path}"
    return f"`{uri}` (`az storage blob download --auth-mode login --blob-url {blob} --file {path.rpartition('/')[2]}`)"
