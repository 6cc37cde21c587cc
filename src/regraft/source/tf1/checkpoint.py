"""Variables of a TensorFlow 1 checkpoint by name, in both of its formats.

V2: `PREFIX.index`, a table of where each tensor lies, and `PREFIX.data-00000-of-00003`, the tensors. V1: one file, a
table that holds the tensors themselves. A variable that was trained in parts is put together again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import SourceError, closest
from regraft.source.graph.graph import MOST_VALUES
from regraft.source.messages import parsed
from regraft.source.tf1.objects import OBJECTS, first_string, own_names
from regraft.source.tf1.schema import messages
from regraft.source.tf1.table import crc32c, is_table, read_table, unmasked

DTYPES = {
    1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 9: "i8", 10: "?", 14: "u2", 17: "u2", 19: "f2", 22: "u4",
    23: "u8",
}  # fmt: skip
BFLOAT16 = 14
_FLOATS = (1, 2, 14, 19)
_CHECKED = 1 << 16  # bytes up to which a tensor's checksum is worth its time
AVERAGE = "/ExponentialMovingAverage"
# What optimizers and savers keep beside the weights.
_SLOT = re.compile(
    r"(.*/)?((Adam|AdamW|Adamax|Nadam|AdaMax|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl|LARS|LAMB|Lookahead)(_\d+)?"
    r"|ExponentialMovingAverage|beta[12]_power(_\d+)?|global_step|save_counter|\.OPTIMIZER_SLOT.*|"
    r"_CHECKPOINTABLE_OBJECT_GRAPH)"
)


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    Args:
        dtype: TensorFlow's number of its type.
        shape: of the whole tensor.
        shard: number of the data file.
        offset: in bytes.
        size: in bytes.
        crc: masked checksum, 0 where there is none.
        slices: (start, length) for each axis of each part, where it is stored in parts.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    slices: tuple[tuple[tuple[int, int], ...], ...] = ()


class Checkpoint(Mapping[str, np.ndarray]):
    """Variables by name; each is read when it is asked for.

    Args:
        path: as messages name it.
        entries: where the tensors lie; parts of tensors have the key that TensorFlow gives them.
        shards: the data files.
        held: tensors that were read with the table, in the older format.
    """

    def __init__(
        self, path: Path, entries: Mapping[bytes, Entry], shards: list[Path], held: Mapping[str, np.ndarray]
    ) -> None:
        self.path = path
        self._entries = entries
        self._shards = shards
        self._held = held
        self.names = tuple(held) or tuple(key.decode() for key in entries if not key.startswith(b"\0"))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._held or name.encode() in self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._held:
            return self._held[name]
        entry = self._entries.get(name.encode())
        if entry is None:
            raise SourceError(
                f"{self.path} has no variable {name!r}.{closest(name, self.names)} `regraft inspect {self.path}` "
                "lists all of them"
            )
        return self._whole(name, entry) if entry.slices else self._read(name, entry)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a variable, without reading it."""
        return self._held[name].shape if name in self._held else self._entries[name.encode()].shape

    def is_weight(self, name: str) -> bool:
        """Whether it is a variable of the network: numbers, and no optimizer's or saver's."""
        is_float = self._held[name].dtype.kind == "f" if self._held else self._dtype(name) in _FLOATS
        return is_float and _SLOT.fullmatch(name) is None

    def _dtype(self, name: str) -> int:
        return self._entries[name.encode()].dtype

    def _whole(self, name: str, entry: Entry) -> np.ndarray:
        """Put together from its parts."""
        _check_cover(self.path, name, entry)
        whole = np.zeros(entry.shape, np.float32)
        for part in entry.slices:
            found = self._entries.get(_slice_key(name, part))
            chosen = tuple(slice(start, start + n if n >= 0 else None) for start, n in part)
            if found is None or whole[chosen].shape != found.shape:
                raise _damaged(self.path, f"a part of {name!r} is missing")
            whole[chosen] = self._read(name, found)
        return whole

    def _read(self, name: str, entry: Entry) -> np.ndarray:
        dtype = DTYPES.get(entry.dtype)
        count = math.prod(entry.shape)
        if dtype is None or count > MOST_VALUES or entry.size != count * np.dtype(dtype).itemsize:
            raise _damaged(self.path, f"the size of {name!r} is impossible")
        return _as_array(self._bytes(name, entry), entry.dtype).reshape(entry.shape)

    def _bytes(self, name: str, entry: Entry) -> bytes:
        data = self.stored(name, entry)
        if entry.crc and entry.size <= _CHECKED and unmasked(entry.crc) != crc32c(data):
            raise _damaged(self._shards[entry.shard], f"the checksum of {name!r} is wrong")
        return data

    def stored(self, name: str, entry: Entry) -> bytes:
        """The bytes of an entry as they lie in their file.

        Raises:
            SourceError: the file is not there, or ends before.
        """
        if not 0 <= entry.shard < len(self._shards):
            raise _damaged(self.path, f"{name!r} lies in a file that there is none of")
        shard = self._shards[entry.shard]
        if not shard.is_file():
            raise SourceError(f"{shard} is missing, which holds {name!r}. Copy it beside {self.path.name}")
        if not 0 <= entry.offset <= shard.stat().st_size - entry.size:
            raise _damaged(shard, f"it ends before {name!r} does")
        with shard.open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)


def _as_array(data: bytes, dtype: int) -> np.ndarray:
    values = np.frombuffer(data, "<" + DTYPES[dtype] if DTYPES[dtype] != "?" else "?")
    if dtype == BFLOAT16:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _check_cover(path: Path, name: str, entry: Entry) -> None:
    sizes = [
        math.prod(n if n >= 0 else side for (_, n), side in zip(part, entry.shape, strict=True))
        for part in entry.slices
        if len(part) == len(entry.shape)
    ]
    if sum(sizes) != math.prod(entry.shape) or math.prod(entry.shape) > MOST_VALUES:
        raise _damaged(path, f"the parts of {name!r} do not fill it")


def _slice_key(name: str, part: tuple[tuple[int, int], ...]) -> bytes:
    """The key of a tensor's part, in TensorFlow's order-preserving code."""
    escaped = name.encode().replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0")
    numbers = b"".join(_signed(value) for extent in part for value in extent)
    return b"\0" + escaped + b"\0\1" + _unsigned(len(part)) + numbers


def _unsigned(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _signed(value: int) -> bytes:
    """As many bytes as the leading ones say, the sign kept by the first bit."""
    size = 1
    while not -(1 << (7 * size - 1)) <= value < 1 << (7 * size - 1):
        size += 1
    header = ((1 << size) - 1) << (8 * size - size)
    return ((value & ((1 << 8 * size) - 1)) ^ header).to_bytes(size, "big")


def open_variables(path: Path) -> Checkpoint:
    """A checkpoint in either format.

    Args:
        path: the common prefix of its files, one of them, or the single file of the older format.

    Raises:
        SourceError: a file is missing or damaged.
        MissingExtra: protobuf is not installed.
    """
    index = path.with_name(path.name + ".index")
    if not index.is_file() and path.is_file():
        return _open_old(path)
    if not index.is_file():
        raise SourceError(
            f"there is no {index}, which says where the variables lie. Copy all files of the checkpoint: "
            f"{path.name}.index, {path.name}.data-00000-of-00001 and, for the graph, {path.name}.meta"
        )
    found = dict(read_table(index.read_bytes(), str(index)))
    header = parsed(messages()["BundleHeader"], found.pop(b"", b""), str(index))
    if header.endianness != 0 or not 0 < header.num_shards <= len(list(path.parent.iterdir())) + 1:
        raise _damaged(index, "its header is impossible, or most of its data files are missing")
    entries = {key: _entry(value, index) for key, value in found.items()}
    n = header.num_shards
    shards = [path.with_name(f"{path.name}.data-{i:05d}-of-{n:05d}") for i in range(n)]
    try:
        return _named(Checkpoint(path, entries, shards, {}), entries, shards)
    except UnicodeDecodeError as error:
        raise _damaged(index, "a name is no text") from error


def _named(checkpoint: Checkpoint, entries: dict[bytes, Entry], shards: list[Path]) -> Checkpoint:
    """With the variables' own names, where TensorFlow 2 wrote paths of objects instead."""
    objects = entries.get(OBJECTS.encode())
    if objects is None:
        return checkpoint
    where = str(checkpoint.path)
    graph = first_string(checkpoint.stored(OBJECTS, objects), where)
    return Checkpoint(checkpoint.path, own_names(entries, graph, where), shards, {})


def _entry(value: bytes, index: Path) -> Entry:
    found = parsed(messages()["BundleEntry"], value, str(index))
    shape = tuple(dim.size for dim in found.shape.dim)
    if any(not 0 <= size <= MOST_VALUES for size in shape):
        raise _damaged(index, "a shape is impossible")
    slices = tuple(_extents(part) for part in found.slices)
    return Entry(found.dtype, shape, found.shard_id, found.offset, found.size, found.crc32c, slices)


def _extents(part: Any) -> tuple[tuple[int, int], ...]:
    return tuple((extent.start, extent.length if extent.HasField("length") else -1) for extent in part.extent)


def _open_old(path: Path) -> Checkpoint:
    data = path.read_bytes()
    if not is_table(data):
        raise SourceError(
            f"{path} is no checkpoint of TensorFlow 1. Pass the prefix of PREFIX.index, or name the architecture of "
            f"another kind of weights: load_source('{path}', arch='timm:NAME')"
        )
    metas: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for key, value in read_table(data, str(path)):
        found = parsed(messages()["SavedTensorSlices"], value, str(path))
        if not key:
            metas = {meta.name: meta for meta in found.meta.tensor}
        elif found.data.name in metas:
            _lay(arrays, metas[found.data.name], found.data, path)
    return Checkpoint(path, {}, [], arrays)


def _lay(arrays: dict[str, np.ndarray], meta: Any, saved: Any, path: Path) -> None:
    """One part of a tensor in the older format; most have a single one."""
    shape = tuple(dim.size for dim in meta.shape.dim)
    saved.data.dtype = meta.type  # which is only said there
    values = tensor_array(saved.data, path, plain=True)
    part = _extents(saved.slice)
    fits = len(part) == len(shape) and 0 <= math.prod(shape) <= MOST_VALUES and min(shape, default=0) >= 0
    chosen = tuple(slice(start, start + n if n >= 0 else None) for start, n in part)
    if fits and saved.name not in arrays and len(values) <= math.prod(shape):
        arrays[saved.name] = np.zeros(shape, values.dtype)
    if not fits or saved.name not in arrays or arrays[saved.name][chosen].size != len(values):
        raise _damaged(path, f"{saved.name!r} has more or fewer values than its shape says")
    arrays[saved.name][chosen] = values.reshape(arrays[saved.name][chosen].shape)


def tensor_array(tensor: Any, path: Path, *, plain: bool = False) -> np.ndarray:
    """The value of a constant in a graph, or of a tensor in the older format.

    Args:
        tensor: the message.
        path: for messages.
        plain: as a row of values, whatever shape it claims.

    Raises:
        SourceError: its shape is impossible, or it does not hold as many values.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None or (not plain and not (min(shape, default=0) >= 0 and math.prod(shape) <= MOST_VALUES)):
        raise _damaged(path, f"a constant has type {tensor.dtype} and shape {shape}")
    if tensor.tensor_content:
        content = tensor.tensor_content
        whole = len(content) % np.dtype(dtype).itemsize == 0
        values = _as_array(content if whole else b"", tensor.dtype)
    else:
        values = _listed(tensor, np.dtype(dtype))
    if plain:
        return values
    if len(values) == 1 or (len(values) == 0 and math.prod(shape) == 0):  # one value stands for all
        if math.prod(shape) > 1 << 24:
            raise _damaged(path, f"a constant of one value has shape {shape}")
        return np.broadcast_to(values.reshape(()) if len(values) else 0, shape).astype(values.dtype)
    if len(values) < math.prod(shape) <= 1 << 24 and len(values):  # and the last one for the rest
        values = np.concatenate([values, np.full(math.prod(shape) - len(values), values[-1])])
    if len(values) != math.prod(shape):
        raise _damaged(path, f"a constant of shape {shape} has {len(values)} values")
    return values.reshape(shape)


def _listed(tensor: Any, dtype: np.dtype) -> np.ndarray:
    if tensor.dtype in (BFLOAT16, 19):
        bits = np.fromiter(tensor.half_val, np.uint16, len(tensor.half_val))
        return _as_array(bits.tobytes(), tensor.dtype)
    for values in (tensor.float_val, tensor.double_val, tensor.int_val, tensor.int64_val, tensor.bool_val):
        if len(values):
            return np.array(values).astype(dtype)
    return np.zeros(0, dtype)


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(f"{path} is damaged or cut short: {reason}. Copy or download it again, then pass it")
