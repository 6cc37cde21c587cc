"""What a folder's config may call: architectures, and nothing that could do harm.

`python:pkg.mod:callable` means that this callable is imported and called with arguments from the config. When
a person types it, that is what they want; when it stands in a folder that somebody else made, it could as
well be `subprocess.call`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from torch import nn

from regraft.source.arch import find_callable, split_arch

SUFFIXES = tuple(all_suffixes())
INSIDE = "is code inside the folder itself"


def doubt(arch: str, folder: Path) -> str:
    """Why an architecture named by a folder's config should not be called.

    A callable is taken for an architecture if it is a subclass of nn.Module, is annotated to return one, or
    says what input it expects (`expects`). Code inside the folder itself is never imported.

    Args:
        arch: as in the config.
        folder: where the config lies.

    Returns:
        The reason, to be read after the callable's name; "" if there is none.

    Raises:
        SourceError: there is no such callable.

    Example:
        >>> doubt("python:torch.nn:Linear", Path("downloaded")), doubt("timm:resnet18", Path("downloaded"))
        ('', '')
        >>> doubt("python:subprocess:call", Path("downloaded"))
        'does not say that it returns a torch.nn.Module'
    """
    kind, name = split_arch(arch)
    if kind != "python":
        return ""
    if comes_from(folder, name.partition(":")[0]):
        return INSIDE
    return "" if is_architecture(find_callable(name)) else "does not say that it returns a torch.nn.Module"


def comes_from(folder: Path, module: str) -> bool:
    """Whether importing this module, looked up from the current directory, would run a file of the folder."""
    parts = module.split(".")
    places = [Path.cwd().joinpath(*parts[:i]) for i in range(1, len(parts) + 1)]
    files = [f"{place}{ending}{suffix}" for place in places for ending in ("", "/__init__") for suffix in SUFFIXES]
    return any(folder.resolve() in Path(file).resolve().parents for file in files if Path(file).is_file())


def is_architecture(found: Callable[..., Any]) -> bool:
    """Whether a callable says that it makes a network."""
    if hasattr(found, "input_spec"):
        return True
    returned = found if inspect.isclass(found) else _returned(found)
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def _returned(found: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(found).get("return")
    except (NameError, TypeError):  # hints that name nothing, objects without hints
        return None
