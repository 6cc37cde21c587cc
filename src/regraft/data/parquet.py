"""Parquet: one file or a folder of them; pictures as bytes, as Hugging Face's {bytes, path}, or as paths.

Pictures stay in the file. Rows come in blocks of about a megabyte, read forward through a row group, so that
one pass over the data holds few blocks at a time, however large the file or its row groups are.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from regraft.data.dataset import Problem
from regraft.data.listing import SPLIT_NAMES, Listing, Row
from regraft.data.locate import FileLocator, Locator
from regraft.data.picture import BadPicture, open_encoded
from regraft.data.table import Columns, find_columns, label_name, split_name
from regraft.errors import DataError

_BLOCK_BYTES = 2**20
_CACHE_BYTES = 2**25
_SPLIT_IN_STEM = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})([-_.].*)?$", re.IGNORECASE)


class BlockCache:
    """The blocks read last, up to a number of bytes; shared by the files of one dataset."""

    def __init__(self, capacity: int = _CACHE_BYTES) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[tuple[str, int, int], pa.Array] = OrderedDict()
        self.held = 0  # bytes
        self._lock = threading.Lock()

    def get(self, key: tuple[str, int, int]) -> pa.Array | None:
        """A block, if it is still there."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def put(self, key: tuple[str, int, int], block: pa.Array) -> None:
        """Enter a block; the ones used longest ago make room."""
        with self._lock:
            if key in self._blocks:
                return
            self._blocks[key] = block
            self.held += block.nbytes
            while self.held > self._capacity and len(self._blocks) > 1:
                self.held -= self._blocks.popitem(last=False)[1].nbytes


class PictureColumn:
    """The picture column of one Parquet file, read row by row.

    Args:
        path: the file.
        column: the column's name.
        cache: keeps the blocks read last.
    """

    def __init__(self, path: Path, column: str, cache: BlockCache) -> None:
        self._path = path
        self._column = column
        self._cache = cache
        self._lock = threading.Lock()
        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BLOCK_BYTES)
        self._block_rows = [self._rows_per_block(g) for g in range(self._file.num_row_groups)]
        self._ahead: tuple[int, int, Iterator[pa.RecordBatch]] = (-1, 0, iter(()))

    def content(self, group: int, row: int) -> bytes:
        """The encoded picture of one row of a row group."""
        size = self._block_rows[group]
        value = self._block(group, row // size)[row % size].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return (self._path.parent / value).read_bytes() if isinstance(value, str) else value or b""

    def _block(self, group: int, number: int) -> pa.Array:
        key = (str(self._path), group, number)
        block = self._cache.get(key)
        if block is None:
            with self._lock:
                block = self._cache.get(key)  # another thread may have read it meanwhile
                if block is None:
                    block = self._read_to(group, number)
                    self._cache.put(key, block)
        return block

    def _read_to(self, group: int, number: int) -> pa.Array:
        """Reads forward to a block; starts the row group again only when it lies behind."""
        at_group, at, batches = self._ahead
        if group != at_group or number < at:
            rows = self._block_rows[group]
            at, batches = 0, self._file.iter_batches(rows, row_groups=[group], columns=[self._column])
        try:
            for batch in batches:
                at += 1
                if at > number:
                    self._ahead = (group, at, batches)
                    return batch.column(0)
        except (pa.ArrowException, OSError) as error:
            raise BadPicture("unreadable", f"this part of the Parquet file is damaged ({error})") from error
        raise BadPicture("missing", "the Parquet file has fewer rows than when it was opened")

    def _rows_per_block(self, group: int) -> int:
        meta = self._file.metadata.row_group(group)
        columns = (meta.column(i) for i in range(meta.num_columns))
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == self._column)
        return max(1, min(1024, _BLOCK_BYTES * meta.num_rows // max(1, size)))


@dataclass(frozen=True, slots=True, eq=False)
class ParquetLocator:
    """A picture in a row of a Parquet file."""

    column: PictureColumn
    group: int
    row: int

    def content(self) -> bytes:
        return self.column.content(self.group, self.row)

    def image(self, content: bytes) -> Image.Image:
        return open_encoded(content)


def list_parquet(path: Path) -> Listing:
    """Every row of one Parquet file; its name says nothing."""
    listing = Listing(path.stem)
    _list_file(path, BlockCache(), listing, default=None)
    return listing


def list_parquet_folder(root: Path) -> Listing:
    """Every row of a folder's Parquet files; a split column comes before a split in a file's name."""
    listing, cache = Listing(root.name), BlockCache()
    for path in parquet_files(root):
        from_stem = _SPLIT_IN_STEM.match(path.stem)
        _list_file(path, cache, listing, default=SPLIT_NAMES[from_stem[1].lower()] if from_stem else None)
    return listing


def parquet_files(root: Path) -> list[Path]:
    """The Parquet files of a folder, or of the one folder below it that has any."""
    here = sorted(root.glob("*.parquet"))
    if here:
        return here
    below = sorted(root.glob("*/*.parquet"))
    folders = sorted({path.parent.name for path in below})
    if len(folders) > 1:
        raise DataError(
            f"{root} has Parquet files in several folders ({', '.join(folders)}). "
            f"Expected one dataset: read({str(root / folders[0])!r})"
        )
    return below


def _list_file(path: Path, cache: BlockCache, listing: Listing, default: str | None) -> None:
    file = _open(path)
    columns = find_columns(path, file.schema_arrow.names)
    _check_type(path, columns.picture, file.schema_arrow.field(columns.picture).type)
    names = _class_names(file.schema_arrow, columns.label)
    if names and listing.classes is None:
        listing.classes = tuple(names)
    locate = _locators(path, file.schema_arrow, columns, cache)
    small = [c for c in (columns.label, columns.split) if c]
    if _is_text(file.schema_arrow.field(columns.picture).type):
        small.append(columns.picture)
    number = 0
    for group in range(file.num_row_groups):
        for row, record in enumerate(_records(file, group, small)):
            locator = locate(group, row, record)
            _add(listing, f"{path.name}#{number}", locator, record, columns, names, default)
            number += 1


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({error}). "
            f"Write it again, for example: dataframe.to_parquet({path.name!r})"
        ) from error


def _check_type(path: Path, column: str, kind: pa.DataType) -> None:
    kinds = pa.types
    if not any(fits(kind) for fits in (kinds.is_binary, kinds.is_large_binary, kinds.is_struct, _is_text)):
        raise DataError(
            f"the column {column!r} of {path} holds {kind}. Expected encoded pictures (binary), "
            "{bytes, path}, or paths (string); for pixel values use arrays: read((X, y))"
        )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _records(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(4096, row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _locators(path: Path, schema: pa.Schema, columns: Columns, cache: BlockCache):
    if _is_text(schema.field(columns.picture).type):
        return lambda group, row, record: FileLocator(str(path.parent / str(record[columns.picture])))
    column = PictureColumn(path, columns.picture, cache)
    return lambda group, row, record: ParquetLocator(column, group, row)


def _add(
    listing: Listing,
    name: str,
    locator: Locator,
    record: dict[str, Any],
    columns: Columns,
    names: list[str],
    default: str | None,
) -> None:
    value = record[columns.label]
    if names and isinstance(value, int):  # -1 is Hugging Face's word for "not labelled"
        label = names[value] if 0 <= value < len(names) else None
    else:
        label = label_name(value)
    if label is None:
        listing.bad.append(Problem("no label", name, f"the cell says {value!r}"))
        return
    try:
        split = split_name(record[columns.split]) if columns.split else None
    except ValueError as error:
        listing.bad.append(Problem("unknown split", name, str(error)))
        return
    listing.rows.append(Row(name, locator, label, split or default))


def _class_names(schema: pa.Schema, label: str) -> list[str]:
    """The names behind whole-number labels, as Hugging Face datasets stores them; empty if there are none."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        return list(metadata["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return []
