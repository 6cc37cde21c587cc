"""TensorFlow 2 writes a checkpoint's variables under the paths of objects; the variables' own names lie beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from regraft.errors import SourceError
from regraft.source.messages import parsed
from regraft.source.tf1.schema import messages

if TYPE_CHECKING:
    from regraft.source.tf1.checkpoint import Entry

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = b"/.ATTRIBUTES/VARIABLE_VALUE"


def own_names(entries: Mapping[bytes, Entry], graph: bytes, where: str) -> dict[bytes, Entry]:
    """A checkpoint's entries under the names that its variables have in their network.

    A variable that several objects hold is kept once. Where two variables have the same name, and for an optimizer's,
    the path of the object stays.

    Args:
        entries: by the keys of the file.
        graph: the message that says which key is which variable's.
        where: for messages.
    """
    found = parsed(messages()["ObjectGraph"], graph, where)
    names = {a.checkpoint_key.encode(): a.full_name.encode() for node in found.nodes for a in node.attributes}
    renamed: dict[bytes, Entry] = {}
    for key, entry in entries.items():
        name = names.get(key, b"")
        short = key.removesuffix(_VALUE)
        if not name or b"optimizer" in key or b".OPTIMIZER_SLOT" in key:
            renamed[short if _VALUE in key and b".OPTIMIZER_SLOT" not in key else key] = entry
        elif name not in renamed:
            renamed[name] = entry
        elif (renamed[name].crc, renamed[name].shape) != (entry.crc, entry.shape):
            renamed[short] = entry
    return renamed


def first_string(stored: bytes, where: str) -> bytes:
    """The one string of a tensor of strings, as a checkpoint stores it: its length, a checksum, its bytes.

    Raises:
        SourceError: it is cut short.
    """
    length = end = 0
    for at, byte in enumerate(stored[:10]):
        length |= (byte & 127) << (7 * at)
        if byte < 128:
            end = at + 1
            break
    content = stored[end + 4 :]
    if not end or len(content) != length:
        raise SourceError(f"{where} is damaged: the names of its variables are cut short. Copy or download it again")
    return content
