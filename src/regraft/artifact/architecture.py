"""What a bundle may call when it is loaded: architectures, and nothing that could do harm.

A bundle names its architecture, and `python:pkg.mod:callable` means that this callable is imported and
called with arguments from config.json. A bundle from a stranger could name any function on the machine,
`subprocess.call` say.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from torch import nn

from regraft.errors import BundleError
from regraft.source.arch import find_callable, split_arch

SUFFIXES = tuple(all_suffixes())


def check_harmless(arch: str, arguments: Mapping[str, Any], folder: Path) -> None:
    """Refuse an architecture that is a callable of unknown purpose.

    A callable is taken for an architecture if it is a subclass of nn.Module, is annotated to return one, or
    says what input it expects (`expects`). Any other is called with numbers only, which can open and run
    nothing. Code inside the bundle's own folder is never imported.

    Args:
        arch: as in config.json.
        arguments: as in config.json.
        folder: of the bundle.

    Raises:
        BundleError: it may be something else.
    """
    kind, name = split_arch(arch)
    if kind != "python":
        return
    if _lies_in(folder, name.partition(":")[0]):
        raise _refusal(folder, name, "is code inside the model's own folder")
    numbers = all(isinstance(value, bool | int | float) for value in arguments.values())
    if not numbers and not _is_architecture(find_callable(name)):
        raise _refusal(folder, name, "does not say that it returns a torch.nn.Module")


def _refusal(folder: Path, name: str, why: str) -> BundleError:
    return BundleError(
        f"{folder} wants to call {name}, which {why}. Weights are data: a saved model runs no code of its "
        "own. "
        f"If you know this callable and trust it: load({str(folder)!r}, trust_code=True)"
    )


def _lies_in(folder: Path, module: str) -> bool:
    """Whether importing this module, looked up from the current directory, would run a file of the folder."""
    parts = module.split(".")
    places = [Path.cwd().joinpath(*parts[:i]) for i in range(1, len(parts) + 1)]
    files = [f"{place}{ending}{suffix}" for place in places for ending in ("", "/__init__") for suffix in SUFFIXES]
    return any(folder.resolve() in Path(file).resolve().parents for file in files if Path(file).is_file())


def _is_architecture(found: Callable[..., Any]) -> bool:
    if hasattr(found, "input_spec"):
        return True
    returned = found if inspect.isclass(found) else _returned(found)
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def _returned(found: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(found).get("return")
    except Exception:  # an annotation that does not resolve says nothing
        return None
