"""Operations that traces hold in one piece, as the plain ones that they stand for, which have gradients.

N pictures, L places, E features, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Apply = Callable[..., Any]  # (name of an operation, list of arguments, named arguments) to what it gives


def _convolution(apply: Apply, *args: Any) -> Any:
    image, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    if transposed:
        rest = [stride, padding, output_padding, groups, dilation]
        return apply(f"conv_transpose{len(stride)}d", [image, weight, bias, *rest], {})
    return apply(f"conv{len(stride)}d", [image, weight, bias, stride, padding, dilation, groups], {})


def _attention(apply: Apply, *args: Any) -> Any:
    """Attention of (N, L, E) to itself; its weights are not given, as the plain form does not make them."""
    query, key, value, n_features, n_heads, weight, bias, out_weight, out_bias, *mask = args
    if query != key or query != value or any(part is not None for part in mask[:1]):
        raise ValueError("attention to other places, or with a mask, in one piece")
    n, length, _ = apply("size", [query], {})
    joined = apply("linear", [query, weight, bias], {})
    joined = apply("view", [joined, [n, length, 3, n_heads, n_features // n_heads]], {})
    q, k, v = apply("unbind", [apply("permute", [joined, [2, 0, 3, 1, 4]], {})], {})  # (N, H, L, E / H) each
    mixed = apply("transpose", [apply("scaled_dot_product_attention", [q, k, v], {}), 1, 2], {})
    mixed = apply("reshape", [mixed, [n, length, n_features]], {})
    return apply("linear", [mixed, out_weight, out_bias], {}), None


def _encoder_layer(apply: Apply, *args: Any) -> Any:
    """A layer of a transformer, (N, L, E) to (N, L, E)."""
    x, n_features, n_heads, *attends = args[:7]
    is_gelu, norm_first, eps, *norms = args[7:14]
    up, up_bias, down, down_bias, *mask = args[14:]
    if any(part is not None for part in mask[:1]):
        raise ValueError("a layer of a transformer with a mask, in one piece")

    def normed(x: Any, which: int) -> Any:
        return apply("layer_norm", [x, [n_features], *norms[which : which + 2], eps], {})

    def attended(x: Any) -> Any:
        return _attention(apply, x, x, x, n_features, n_heads, *attends)[0]

    def fed(x: Any) -> Any:
        hidden = apply("gelu" if is_gelu else "relu", [apply("linear", [x, up, up_bias], {})], {})
        return apply("linear", [hidden, down, down_bias], {})

    for i, part in ((0, attended), (2, fed)):
        x = apply("add", [x, part(normed(x, i) if norm_first else x)], {})
        x = x if norm_first else normed(x, i)
    return x


FUSED: dict[str, Callable[..., Any]] = {
    "_convolution": _convolution,
    "_native_multi_head_attention": _attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
}
