"""Parquet: one file or a folder of them; pictures as bytes, as Hugging Face's {bytes, path}, or as paths.

Pictures stay in the file. Rows come in blocks of about a megabyte, read forward through a row group, so that
one pass over the data holds few blocks at a time, however large the file or its row groups are.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.data.bad import BadExample
from regraft.data.dataset import Problem
from regraft.data.folder import class_folders
from regraft.data.listing import SPLIT_NAMES, Listing, folder_name, is_shown
from regraft.data.locate import FileLocator
from regraft.data.medium import MEDIA
from regraft.data.table import (
    Columns,
    Place,
    enter,
    file_locator,
    find_columns,
    finish,
    holds_texts,
    label_name,
    text_locator,
)
from regraft.data.task import Kind
from regraft.errors import DataError
from regraft.spec import Modality

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

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it begins empty."""
        return BlockCache, (self._capacity,)

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

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the file is opened anew."""
        return PictureColumn, (self._path, self._column, self._cache)

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
            raise BadExample("unreadable", f"this part of the Parquet file is damaged ({error})") from error
        raise BadExample("missing", "the Parquet file has fewer rows than when it was opened")

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


def list_parquet(
    path: Path, modality: Modality | None = None, kind: Kind | None = None, *, labelled: bool = True
) -> Listing:
    """Every row of one Parquet file; its name says nothing."""
    listing = Listing(path.stem, kind=kind, labelled=labelled)
    return finish(listing, _list_file(path, BlockCache(), listing, None, modality))


def list_parquet_folder(root: Path, modality: Modality | None = None, kind: Kind | None = None) -> Listing:
    """Every row of a folder's Parquet files; a split column comes before a split in the name of a file or folder.

    Folders of examples that no row names are left out, with a note.
    """
    listing, cache, columns = Listing(folder_name(root), kind=kind), BlockCache(), None
    for path in parquet_files(root):
        named = _SPLIT_IN_STEM.match(path.stem) or _SPLIT_IN_STEM.fullmatch(path.parent.name)
        default = SPLIT_NAMES[named[1].lower()] if named else None
        columns = _list_file(path, cache, listing, default, modality or (columns and columns.modality))
    if not any(isinstance(row.locator, FileLocator) for row in listing.rows):
        beside = (folder.relative_to(root).as_posix() for folder in class_folders(root))
        listing.notes += [Problem("ignored", name, "a folder beside the Parquet files") for name in beside]
    return finish(listing, columns)


def parquet_files(root: Path) -> list[Path]:
    """The Parquet files of a folder, or of the one folder below it that has any, or of its split folders.

    Where the folder has classes, Parquet files below it are no more than something that lies beside the examples.
    """
    here = _shown(root, "*.parquet")
    if here:
        return here
    below = _shown(root, "*/*.parquet")
    if below and len({folder.name for folder in class_folders(root)}) > 1:
        return []
    folders = sorted({path.parent.name for path in below})
    if len(folders) > 1 and not all(name.lower() in SPLIT_NAMES for name in folders):
        raise DataError(
            f"{root} has Parquet files in several folders ({', '.join(folders)}). "
            f"Expected one dataset: read({str(root / folders[0])!r})"
        )
    return below


def _shown(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if all(map(is_shown, path.relative_to(root).parts)))


def _list_file(
    path: Path, cache: BlockCache, listing: Listing, default: str | None, modality: Modality | None
) -> Columns:
    file = _open(path)
    schema = file.schema_arrow
    numbers = [field.name for field in schema if _is_number(field.type)]
    columns = find_columns(path, schema.names, modality, numbers, labelled=listing.labelled)
    held = schema.field(columns.content).type
    _check_type(path, columns, held)
    names = _class_names(schema, columns.label) if columns.label else []
    if names and listing.classes is None:
        listing.classes = tuple(names)
    locate = _locators(path, held, columns, cache)
    small = [c for c in (columns.label, columns.split, columns.second) if c]
    small += [columns.content] if _is_text(held) else []
    number = 0
    for group in range(file.num_row_groups):
        for row, record in enumerate(_records(file, group, small)):
            name = f"{path.name}#{number}"
            place = partial(locate, name, group, row, record)
            enter(listing, name, record, columns, place, partial(_label, names), default)
            number += 1
    return columns


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({error}). "
            f"Write it again, for example: dataframe.to_parquet({path.name!r})"
        ) from error


def _check_type(path: Path, columns: Columns, kind: pa.DataType) -> None:
    kinds, noun = pa.types, MEDIA[columns.modality or "image"].noun
    encoded = any(fits(kind) for fits in (kinds.is_binary, kinds.is_large_binary, kinds.is_struct))
    if not _is_text(kind) and (columns.modality == "text" or not encoded):
        expected = (
            "texts (string)"
            if columns.modality == "text"
            else f"encoded {noun}s (binary), {{bytes, path}}, or paths (string)"
        )
        raise DataError(
            f"the column {columns.content!r} of {path} holds {kind}. Expected {expected}; "
            "for pixel values use arrays: read((X, y))"
        )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _records(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(4096, row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _locators(path: Path, held: pa.DataType, columns: Columns, cache: BlockCache) -> Callable[..., Place]:
    """From the name, the place and the cells of a row to its example."""
    if _is_text(held) and holds_texts(columns):
        return lambda name, group, row, record: (name, text_locator(record, columns))
    if _is_text(held):
        return lambda name, group, row, record: (name, file_locator(path, record[columns.content], columns))
    column = PictureColumn(path, columns.content, cache)
    return lambda name, group, row, record: (name, ParquetLocator(column, group, row))


def _label(names: list[str], value: Any) -> str | tuple[str, ...] | None:
    if names and isinstance(value, list):
        told = [_label(names, one) for one in value]
        return None if not all(isinstance(name, str) for name in told) else tuple(map(str, told))
    if names and isinstance(value, int):  # -1 is Hugging Face's word for "not labelled"
        return names[value] if 0 <= value < len(names) else None
    return label_name(value)


def _class_names(schema: pa.Schema, label: str) -> list[str]:
    """The names behind whole-number labels, as Hugging Face datasets stores them; empty if there are none."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        return list(metadata["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return []
