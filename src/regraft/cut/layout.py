"""What the axes of an activation are.

C channels, H and W pixels, L tokens, D features.
"""

from __future__ import annotations

import math

from torch import fx

from regraft.cut.graph import aten, row_shape

_CONVOLUTIONS = (aten.conv1d.default, aten.conv1d.padding, aten.convolution.default)
_TURNS = (aten.transpose.int, aten.permute.default)
_PRODUCTS = (aten.linear.default, aten.addmm.default, aten.matmul.default, aten.bmm.default)
# What takes (N, C, H, W) and nothing else.
_CHANNELS_FIRST = {
    *(aten.conv2d, aten.convolution, aten.conv_transpose2d, aten.batch_norm, aten.group_norm, aten.instance_norm),
    *(aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d, aten.pixel_shuffle, aten.pixel_unshuffle),
    *(aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d),
}
# Operations that move channels to the other end, with the axes for which they do.
_TURNED = {aten.permute: ((0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1)), aten.transpose: ((1, 2), (2, 1))}
_RESHAPED = {aten.reshape, aten.view, aten.flatten, aten.unflatten}
_NORMS = {aten.layer_norm, aten.rms_norm}  # over the last axis, where they are over one


def layout(node: fx.Node, shape: tuple[int, ...]) -> str:
    """What the axes of an activation are: by the nearest operation that tells, else by its shape.

    (C, H, W) is "NCHW"; (H, W, C) "NHWC", taken where the first two are equal and the last differs; (L, D) is
    "NLC", (D, L) behind a one-dimensional convolution "other", and (D,) "NC". What has a free length first is "ragged".
    """
    if node.meta.get("ragged"):
        return "ragged"
    if len(shape) == 3:
        return _told(node) or ("NHWC" if shape[0] == shape[1] != shape[2] else "NCHW")
    if len(shape) == 2:
        return "other" if _channels_first_tokens(node, shape) or _channels_first_sound(node) else "NLC"
    return "NC" if len(shape) == 1 else "other"


def _told(node: fx.Node) -> str | None:
    """By the nearest operation before it, through those that keep channels at their end or move them to the other."""
    queue, seen = [(node, False)], {node}
    for at, turned in queue:
        packet = getattr(at.target, "overloadpacket", None)
        if packet in _CHANNELS_FIRST:
            return "NHWC" if turned else "NCHW"
        if packet is aten.linear or (packet in _NORMS and len(at.args[1]) == 1):  # type: ignore[arg-type]
            return "NCHW" if turned else "NHWC"
        before = [n for n in at.all_input_nodes if n not in seen and _kept(at, n)]
        seen.update(before)
        queue += [(n, turned != (packet in _TURNED)) for n in before]
    return None


def _kept(node: fx.Node, before: fx.Node) -> bool:
    """Whether channels stand at one end of a value as they do in one of its inputs, or at the other end."""
    shape, was = row_shape(node), row_shape(before)
    if not shape or not was:
        return False
    packet = getattr(node.target, "overloadpacket", None)
    if packet in _TURNED:
        return tuple(axis % (len(was) + 1) for axis in _axes(node)) in _TURNED[packet]
    if packet in _RESHAPED:  # pixels become a row of tokens, or the reverse
        return math.prod(shape) == math.prod(was) and (shape[-1] == was[-1] or shape[0] == was[0])
    return shape == was


def _axes(node: fx.Node) -> tuple[int, ...]:
    """Those that a permutation or a transposition names."""
    named = node.args[1:]
    return tuple(named[0] if isinstance(named[0], list | tuple) else named)  # type: ignore[arg-type]


def _channels_first_tokens(node: fx.Node, shape: tuple[int, ...]) -> bool:
    """(C, H, W) flattened to (C, H·W), before the transpose that makes tokens of it."""
    before = row_shape(node.all_input_nodes[0]) if node.all_input_nodes else None
    return before is not None and len(before) == 3 and before[0] == shape[0] and math.prod(before) == math.prod(shape)


def _channels_first_sound(node: fx.Node) -> bool:
    """What a one-dimensional convolution gave, perhaps normalised, activated, or turned and turned back."""
    turned = False
    while node.target not in _CONVOLUTIONS:
        before = next((n for n in node.all_input_nodes if row_shape(n)), None)
        if before is None:
            return False
        if node.target in _TURNS:
            turned = not turned
        elif node.target in _PRODUCTS or row_shape(before) != row_shape(node):
            return False
        node = before
    return not turned and len(row_shape(node) or ()) == 2
