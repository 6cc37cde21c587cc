"""The part of TensorFlow's messages that is read: tensorflow/core/{framework,protobuf,util}/*.proto."""

from __future__ import annotations

from functools import cache
from typing import Any

from regraft.source.messages import declare

_MESSAGES = {
    "MetaGraphDef": "2 graph_def GraphDef",
    "GraphDef": "1 node NodeDef*",
    "NodeDef": "1 name string; 2 op string; 3 input string*; 5 attr AttrEntry*",
    "AttrEntry": "1 key string; 2 value AttrValue",
    "AttrValue": (
        "1 list AttrList; 2 s bytes; 3 i int64; 4 f float; 5 b bool; 6 type int32; 7 shape TensorShape; 8 tensor Tensor"
    ),
    "AttrList": "2 s bytes*; 3 i int64*; 4 f float*; 5 b bool*; 6 type int32*; 7 shape TensorShape*",
    "TensorShape": "2 dim Dim*; 3 unknown_rank bool",
    "Dim": "1 size int64",
    "Tensor": (
        "1 dtype int32; 2 tensor_shape TensorShape; 4 tensor_content bytes; 5 float_val float*; 6 double_val double*; "
        "7 int_val int32*; 10 int64_val int64*; 11 bool_val bool*; 13 half_val int32*"
    ),
    "BundleHeader": "1 num_shards int32; 2 endianness int32",
    "BundleEntry": (
        "1 dtype int32; 2 shape TensorShape; 3 shard_id int32; 4 offset int64; 5 size int64; 6 crc32c fixed32; "
        "7 slices TensorSlice*"
    ),
    "TensorSlice": "1 extent Extent*",
    "Extent": "1 start int64; 2 length int64",
    "SavedTensorSlices": "1 meta SavedMeta; 2 data SavedSlice",
    "SavedMeta": "1 tensor SavedSliceMeta*",
    "SavedSliceMeta": "1 name string; 2 shape TensorShape; 3 type int32; 4 slice TensorSlice*",
    "SavedSlice": "1 name string; 2 slice TensorSlice; 3 data Tensor",
    "ObjectGraph": "1 nodes ObjectNode*",
    "ObjectNode": "2 attributes ObjectAttribute*",
    "ObjectAttribute": "1 name string; 2 full_name string; 3 checkpoint_key string",
    "CheckpointState": "1 model_checkpoint_path string",
}


@cache
def messages() -> dict[str, Any]:
    """Message classes by name."""
    return declare("regraft.tensorflow", _MESSAGES, {})
