"""What a bundle may call when it is loaded: architectures, and nothing that could do harm."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.errors import BundleError
from regraft.source.arch import split_arch
from regraft.source.trust import INSIDE, doubt


def check_harmless(arch: str, arguments: Mapping[str, Any], folder: Path) -> None:
    """Refuse an architecture that is a callable of unknown purpose (see `regraft.source.trust.doubt`).

    A user's own function that does not say what it returns is called with numbers only, which can name no file and
    no command; functions of Python's library and of regraft are not, since `os.abort` needs no arguments at all.

    Args:
        arch: as in config.json.
        arguments: as in config.json.
        folder: of the bundle.

    Raises:
        BundleError: it may be something else.
    """
    why = doubt(arch, folder)
    if why == INSIDE or (why and not _own_function_of_numbers(arch, arguments)):
        raise BundleError(
            f"{folder} wants to call {arch.removeprefix('python:')}, which {why}. Weights are data: a saved model "
            "runs no code of its own. If you know this callable and trust it: "
            f"load({str(folder)!r}, trust_code=True), on the command line --trust-code"
        )


def _own_function_of_numbers(arch: str, arguments: Mapping[str, Any]) -> bool:
    package = split_arch(arch)[1].partition(":")[0].partition(".")[0]
    known = package in sys.stdlib_module_names or package == "regraft"
    return not known and all(isinstance(value, bool | int | float) for value in arguments.values())
