"""The operations of an exported program that are let through, by name.

Everything else is refused: operators of other libraries, those whose result depends on chance or on values, those
that reach for files or memory that is not theirs, and those that have no gradient.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

_ATEN = "torch.ops.aten."
_NAMES = """
relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid sigmoid tanh softplus softmax
_softmax log_softmax _log_softmax prelu _prelu_kernel glu log_sigmoid softshrink hardshrink threshold
add sub rsub mul div neg abs exp exp2 expm1 log log1p log2 sqrt rsqrt pow square reciprocal sin cos tan atan atan2 erf
floor ceil round trunc sign clamp clamp_min clamp_max clip maximum minimum floor_divide remainder fmod true_divide
multiply divide subtract negative addcmul addcdiv lerp where eq ne lt le gt ge logical_and logical_or logical_not
logical_xor bitwise_and bitwise_or bitwise_not __and__ __or__ masked_fill isnan isinf nan_to_num
linear addmm mm bmm matmul baddbmm einsum mv dot bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d convolution scaled_dot_product_attention
batch_norm native_batch_norm _native_batch_norm_legit_no_training layer_norm native_layer_norm group_norm
native_group_norm instance_norm rms_norm linalg_vector_norm norm cosine_similarity
max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d
mean sum amax amin max min var var_mean std std_mean prod argmax argmin cumsum logsumexp any all topk
view reshape _unsafe_view flatten unflatten permute transpose t swapaxes swapdims movedim squeeze unsqueeze expand
expand_as broadcast_to repeat repeat_interleave tile cat concat concatenate stack hstack vstack split split_with_sizes
unsafe_split unsafe_split_with_sizes chunk unsafe_chunk tensor_split unbind narrow slice select index index_select
gather flip roll pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle unfold im2col col2im contiguous clone alias detach
lift_fresh lift_fresh_copy to _to_copy type_as view_as reshape_as tril triu diagonal meshgrid copy fill zero
ones zeros full eye arange linspace scalar_tensor ones_like zeros_like full_like new_ones new_zeros new_full embedding
upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d
_upsample_bilinear2d_aa _upsample_bicubic2d_aa upsample_linear1d grid_sampler grid_sampler_2d affine_grid_generator
dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout sym_size sym_numel
"""
ALLOWED = frozenset(_NAMES.split())
# Arithmetic of sizes; powers and shifts could be made to grow without end.
_OF_SIZES: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
    },
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_int": torch.sym_int,
    "torch.sym_float": torch.sym_float,
    "torch.sym_not": torch.sym_not,
}
# Checks that export leaves in a graph; they compute nothing.
CHECKS = tuple(
    _ATEN + name
    for name in ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size",
                 "sym_constrain_range")
)  # fmt: skip
MOST_PARTS = 1 << 16  # that one tensor is taken apart into


def op_name(target: str) -> str:
    """The operation of a target, without its library and overload.

    Example:
        >>> op_name("torch.ops.aten.add_.Tensor")
        'add_'
    """
    return target.removeprefix(_ATEN).partition(".")[0] if target.startswith(_ATEN) else target


def writes(target: str) -> bool:
    """Whether an operation writes into its first argument."""
    name = op_name(target)
    return name.endswith("_") and not name.endswith("__")


def find_op(target: str) -> Callable[..., Any] | None:
    """What a target of an exported program stands for; None where it is not let through.

    Example:
        >>> find_op("torch.ops.aten.relu.default"), find_op("torch.ops.aten.from_file.default")
        (<OpOverload(op='aten.relu', overload='default')>, None)
    """
    if target in _OF_SIZES:
        return _OF_SIZES[target]
    name, overload = op_name(target), target.rpartition(".")[2]
    known = name in ALLOWED or (writes(target) and name[:-1] in ALLOWED)
    if target != f"{_ATEN}{name}.{overload}" or not known:
        return None
    packet = getattr(torch.ops.aten, name, None)
    found = getattr(packet, overload, None) if overload in getattr(packet, "overloads", list)() else None
    is_out = found is not None and any(argument.is_out for argument in found._schema.arguments)
    return None if is_out else found


def argument_names(target: str) -> list[str]:
    """What a target's arguments are called, in order; nothing for arithmetic of sizes.

    Example:
        >>> argument_names("torch.ops.aten.linear.default")
        ['input', 'weight', 'bias']
    """
    schema = getattr(find_op(target), "_schema", None)
    return [argument.name for argument in schema.arguments] if schema else []
