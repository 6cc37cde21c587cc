"""Raw bytes as tensors, as PyTorch's archives keep them: a storage, and views of it by sizes and strides."""

from __future__ import annotations

import torch

from regraft.errors import SourceError


def strided(
    content: bytes, dtype: torch.dtype, shape: list[int], strides: list[int], offset: int, where: str
) -> torch.Tensor:
    """A tensor of its own from a storage's bytes.

    Args:
        content: the whole storage, little-endian.
        dtype: of its elements.
        shape: of the tensor.
        strides: in elements, one for each axis.
        offset: of the first element, in elements.
        where: the file and the tensor, for the message.

    Raises:
        SourceError: the view leaves the storage, or repeats its numbers into more than it holds.

    Example:
        >>> strided(bytes([1, 2, 3, 4]), torch.uint8, [2, 2], [1, 2], 0, "net.pt: w").tolist()
        [[1, 3], [2, 4]]
    """
    n = len(content) // dtype.itemsize
    sane = len(shape) == len(strides) and min([offset, *shape, *strides]) >= 0
    if not sane or not _fits(n, shape, strides, offset):
        raise SourceError(
            f"{where} has the shape {tuple(shape)} with strides {tuple(strides)} from {offset}, which its {n:,} stored "
            "values do not hold. Copy or download the file again"
        )
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(content), dtype=dtype, count=n)
    return flat.as_strided(shape, strides, offset).contiguous()


def _fits(n: int, shape: list[int], strides: list[int], offset: int) -> bool:
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    count = 1
    for side in shape:
        count *= side
    return count == 0 or (last < n and count <= n)
