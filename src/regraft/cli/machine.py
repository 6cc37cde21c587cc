"""What the machine refuses, and how to go on: a disk that is full or closed, memory that is too small."""

from __future__ import annotations

import errno

import torch

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: this user may write no larger file
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# As PyTorch's processor, oneDNN, OpenVINO and C++ itself say it; CUDA and NumPy have classes of their own.
_TOO_LITTLE = ("can't allocate memory", "not enough memory", "could not allocate", "bad_alloc", "out of memory")
_SMALLER = (
    "What was finished is kept in the cache. A fit takes less with smaller batches (--set batch_size=8), with smaller "
    "pictures (--input-size 128), or above a higher cut: --recipe probe trains no layer of the source"
)


def refusal(error: BaseException) -> str | None:
    """The message for a person; None for an error that is none of the machine's.

    Example:
        >>> refusal(OSError(errno.ENOSPC, "No space left on device")).split(".")[0]
        'No space left on device'
        >>> refusal(ZeroDivisionError()) is None
        True
    """
    if isinstance(error, OSError):
        return _of_the_disk(error)
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU has too little memory for this: {_first(error)}. {_SMALLER}, or --device cpu"
    said = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in said for w in _TOO_LITTLE)):
        return f"this machine has too little memory for this: {_first(error)}. {_SMALLER}"
    return None


def _first(error: BaseException) -> str:
    """What failed, without the place in PyTorch's sources and without its advice."""
    line = str(error).strip().partition("\n")[0]
    return line.rpartition("Allocator: ")[2].partition(". ")[0].rstrip(".") or type(error).__name__


def _of_the_disk(error: OSError) -> str | None:
    what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    if error.errno in _DISK_FULL:
        return f"{what}. What was finished is kept. Make room, then call again; a fit goes on with --resume."
    if error.errno in _CLOSED:
        return f"{what}. What was finished is kept. Choose a place that this user may read and write: --out NEW_FOLDER"
    return None
