"""Architectures by name: from a URI to a fresh network, without weights of anyone.

timm:NAME                                   an architecture of timm
python:pkg.mod:callable, pkg.mod:callable   anything importable that returns an nn.Module
regraft:NAME                                the architecture of an embedded source
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from regraft.digest import digest_package
from regraft.errors import SourceError, closest
from regraft.registry import Registry
from regraft.source.plugins import plugin
from regraft.spec import Spec

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])
Builder = Callable[[str, dict[str, Any]], tuple[nn.Module, Spec | None]]

ARCHITECTURES: Registry[Builder] = Registry("kind of architecture", SourceError)
# Kinds whose networks these libraries build, which build upon each other, or the converters of this package.
_RELEASED = ("timm", "torchvision", "hf", "graph", "onnx", "pt2", "regraft")
_LIBRARIES = ("timm", "torchvision", "transformers")


def expects(spec: Spec) -> Callable[[Factory], Factory]:
    """Say what an architecture takes as input, so that `load_source` need not be told.

    Args:
        spec: the input of every network that the decorated callable returns.

    Example:
        >>> from torch import nn
        >>> from regraft.spec import InputSpec
        >>> @expects(InputSpec(size=(3, 8, 8)))
        ... def tiny(num_classes: int = 2) -> nn.Module:
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
        >>> tiny.input_spec.size
        (3, 8, 8)
    """

    def mark(factory: Factory) -> Factory:
        setattr(factory, "input_spec", spec)  # noqa: B010  (functions declare no attributes)
        return factory

    return mark


def build(arch: str, arch_args: dict[str, Any] | None = None, *, seed: int = 0) -> tuple[nn.Module, Spec | None]:
    """An architecture with fresh weights.

    Args:
        arch: `timm:NAME`, `python:pkg.mod:callable`, `pkg.mod:callable` or `regraft:NAME`.
        arch_args: keyword arguments for the architecture, plain JSON values.
        seed: of the initialisation; the global random state is left as it was.

    Returns:
        The network in eval mode on the CPU, and its input where the architecture says it, else None.

    Raises:
        SourceError: no such architecture, or it does not take these arguments.
        MissingExtra: the architecture lives in a package that is not installed.

    Example:
        >>> network, spec = build("regraft.source.cifar_resnet:resnet20", {"num_classes": 4})
        >>> network.linear.out_features, spec.size
        (4, (3, 32, 32))
    """
    kind, name = split_arch(arch)
    with _own_randomness(seed):
        network, spec = ARCHITECTURES[kind](name, dict(arch_args or {}))
    return network.float().eval(), spec


def split_arch(arch: str) -> tuple[str, str]:
    """(kind, name) of an architecture URI; a bare `pkg.mod:callable` is of kind `python`.

    Example:
        >>> split_arch("regraft.source.cifar_resnet:resnet56")
        ('python', 'regraft.source.cifar_resnet:resnet56')
    """
    kind, colon, name = arch.partition(":")
    if not colon or not name:
        raise SourceError(
            f"{arch!r} is not an architecture: expected timm:NAME, regraft:NAME or pkg.mod:callable. "
            "For example: --arch regraft.source.cifar_resnet:resnet20"
        )
    if kind not in ARCHITECTURES:
        plugin(kind)  # whose module enters its architecture, if there is such a one
    return (kind, name) if kind in ARCHITECTURES else ("python", arch)


def canonical_arch(arch: str) -> str:
    """The one spelling that is stored: `python:` is written out.

    Example:
        >>> canonical_arch("my_nets:small")
        'python:my_nets:small'
    """
    return ":".join(split_arch(arch))


def code_of(arch: str) -> list[str] | None:
    """Which released code builds an architecture; None for other people's, which may change under the same name.

    Example:
        >>> code_of("python:my_nets:small") is None, code_of("timm:resnet18") is None
        (True, False)
    """
    if split_arch(arch)[0] not in _RELEASED:
        return None
    return [torch.__version__, digest_package("regraft.source"), *(_version(library) for library in _LIBRARIES)]


@lru_cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def build_python(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, Spec | None]:
    """Call an importable callable; the current directory is on the path meanwhile."""
    with _current_directory_importable():
        factory = find_callable(name)
        _check_arguments(name, factory, arch_args)
        network = factory(**arch_args)
    if not isinstance(network, nn.Module):
        raise SourceError(
            f"{name} returned a {type(network).__name__}, expected a torch.nn.Module. "
            f"Return the network: def {name.rpartition(':')[2]}(num_classes=10): return MyNet(num_classes)"
        )
    return network, getattr(network, "input_spec", None) or getattr(factory, "input_spec", None)


def find_callable(name: str) -> Callable[..., Any]:
    """Import `pkg.mod:callable`; the current directory is on the path meanwhile.

    Raises:
        SourceError: the module or the callable is not there (nearest names are shown).
    """
    module_name, _, attribute = name.partition(":")
    with _current_directory_importable():
        module = _import(module_name, name)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        options = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise SourceError(
            f"{module_name} has no callable {attribute!r}.{closest(attribute, options)} "
            f"Expected a function or class that returns the network: --arch {module_name}:NAME"
        )
    return found


def _import(module_name: str, name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        known = ", ".join(f"{kind}:NAME" for kind in ARCHITECTURES if kind != "python")
        raise SourceError(
            f"cannot import {module_name!r} for the architecture {name!r}: {error}. Expected {known} "
            "or pkg.mod:callable, importable from here: --arch my_networks:small_net for ./my_networks.py"
        ) from error


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _check_arguments(name: str, factory: Callable[..., Any], arch_args: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some built-in callables have none
        return
    try:
        signature.bind(**arch_args)
    except TypeError as error:
        raise SourceError(
            f"{name} does not take the arguments {arch_args}: {error}. It takes {name}{signature}."
        ) from error


ARCHITECTURES.add("python", build_python)
