"""What a folder's config may call: architectures, and nothing that could do harm.

`python:pkg.mod:callable` means that this callable is imported and called with arguments from the config. When
a person types it, that is what they want; when it stands in a folder that somebody else made, it could as
well be `subprocess.call`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from regraft.source.arch import find_callable, split_arch


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
    if _comes_from(folder, name.partition(":")[0]):
        return "is code inside the folder itself"
    return "" if _is_architecture(find_callable(name)) else "does not say that it returns a torch.nn.Module"


def _comes_from(folder: Path, module: str) -> bool:
    """Whether a module of this name, looked up from the current directory, would come out of the folder."""
    first, *rest = module.split(".")
    here = Path.cwd()
    if not any(path.stem.split(".")[0] == first for path in here.iterdir()):
        return False
    return folder.resolve() in here.joinpath(first, *rest).resolve().parents


def _is_architecture(found: Callable[..., Any]) -> bool:
    if hasattr(found, "input_spec"):
        return True
    returned = found if inspect.isclass(found) else _returned(found)
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def _returned(found: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(found).get("return")
    except (NameError, TypeError):  # hints that name nothing, objects without hints
        return None
