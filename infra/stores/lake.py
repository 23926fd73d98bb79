"""The data lake: Parquet files in partitions, each there whole or not at all, named by what they are made of."""

import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fsspec

if TYPE_CHECKING:
    import pyarrow as pa


def write_part(
    table: str, partition: Mapping[str, str], name: str, rows: Iterable[Mapping[str, Any]], schema: "pa.Schema"
) -> str:
    """Write one part of a table; the part of this name that was there before is replaced. Answers its URL.

    Args:
        table: fsspec URL of the table's folder.
        partition: Column to value, outermost first; a part's rows don't repeat them.
        name: Stands for the content, so that writing it again makes no duplicates.
        rows: Values by column name.
        schema: Of the columns that are in the file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer, compression="zstd")
    folder = "/".join([table, *(f"{column}={value}" for column, value in partition.items())])
    url = f"{folder}/part-{name}.parquet"
    write_whole(url, buffer.getvalue())
    return url


def write_whole(url: str, content: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    files, path = fsspec.core.url_to_fs(url)
    folder, _, name = path.rpartition("/")
    files.makedirs(folder, exist_ok=True)
    if "file" not in files.protocol:
        # A blob is replaced when its last block is committed.
        files.pipe_file(path, content)
        return
    # Readers of a table pass over names with a dot in front.
    draft = f"{folder}/.{name}.{uuid4().hex}"
    try:
        files.pipe_file(draft, content)
        files.mv(draft, path)
    finally:
        if files.exists(draft):
            files.rm(draft)
