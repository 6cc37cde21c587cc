"""The code of a TorchScript program: its classes and functions as syntax trees, which nothing compiles or runs.

TorchScript is written in a part of Python's own syntax, so Python's parser reads it. Each file is parsed when one of
its names is first needed.
"""

from __future__ import annotations

import ast
import re
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regraft.errors import SourceError

_MOST_BYTES = 3 << 20  # of all code that is parsed; a large network has some hundred thousand
_MOST_DOTS = 200  # in one chain of names: Python's parser takes time and memory by their square
_NO_SCRIPT = re.compile(rb"\b(?:[fF][rR]?|[rR][fF])[\"']")  # texts with code in them, which TorchScript does not have
# A method that PyTorch runs while it opens a file, and that decides what an object holds.
_ON_OPENING = re.compile(rb"\bdef\s+__setstate__\b")


@dataclass(frozen=True)
class ScriptClass:
    """A class of the program.

    Args:
        name: full, as the objects name it.
        methods: by name.
        parameters: names of the attributes that are learnt.
        buffers: names of the attributes that belong to the state without being learnt.
        constants: attributes that the class itself holds.
        fields: the names of its parts, where it is a named tuple.
        is_enum: whether its constants are the members of an enumeration.
    """

    name: str
    methods: dict[str, ast.FunctionDef]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    constants: dict[str, ast.expr] = field(repr=False)
    fields: tuple[str, ...] | None
    is_enum: bool


class Code:
    """Classes and functions by their full names.

    Args:
        path: of the file, for messages.
        archive: the file.

    Raises:
        SourceError: a class has a method that would run on opening.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive, self._left = path, archive, _MOST_BYTES
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
        self._root = f"{root}/code/"
        self._names = {name for name in archive.namelist() if name.startswith(self._root) and name.endswith(".py")}
        for name in self._names:
            if _ON_OPENING.search(archive.read(name)):
                raise _runs_by_itself(path, name, "__setstate__")
        self._files: dict[str, dict[str, ast.stmt]] = {}
        self._classes: dict[str, ScriptClass] = {}

    def find_class(self, name: str) -> ScriptClass | None:
        """The class of a full name, None where there is none.

        Raises:
            SourceError: its file cannot be parsed, or it has hooks.
        """
        if name not in self._classes:
            found = self._definition(name)
            if not isinstance(found, ast.ClassDef):
                return None
            self._classes[name] = self._class(name, found)
        return self._classes[name]

    def function(self, name: str) -> ast.FunctionDef | None:
        """The function of a full name, None where there is none.

        Raises:
            SourceError: its file cannot be parsed.
        """
        found = self._definition(name)
        return found if isinstance(found, ast.FunctionDef) else None

    def _definition(self, name: str) -> ast.stmt | None:
        folders, _, own = name.rpartition(".")
        member = f"{self._root}{folders.replace('.', '/')}.py"
        if member not in self._names:
            return None
        if member not in self._files:
            self._files[member] = self._parsed(member)
        return self._files[member].get(own)

    def _parsed(self, member: str) -> dict[str, ast.stmt]:
        self._left -= self._archive.getinfo(member).file_size
        if self._left < 0:
            raise SourceError(f"{self._path} holds more code than any network that is read here. Copy it again")
        try:
            tree = _tree(self._archive.read(member))
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise SourceError(
                f"{self._path}: its code {member} is damaged ({str(error)[:100] or type(error).__name__}). Copy or "
                "download it again"
            ) from error
        return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}

    def _class(self, name: str, tree: ast.ClassDef) -> ScriptClass:
        methods = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        lists = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        hooks = [key for key, value in lists.items() if "hook" in key and _texts(value)]
        if hooks:
            raise _runs_by_itself(self._path, name, ", ".join(hooks))
        typed = [node for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
        names = tuple(node.target.id for node in typed if isinstance(node.target, ast.Name))
        bases = [dotted(base) for base in tree.bases]
        constants = {key: node.value for key, node in zip(names, typed, strict=True) if node.value is not None}
        return ScriptClass(
            name,
            methods,
            _texts(lists.get("__parameters__")),
            _texts(lists.get("__buffers__")),
            lists if "Enum" in bases else constants,
            names if "NamedTuple" in bases else None,
            "Enum" in bases,
        )


def _runs_by_itself(path: Path, where: str, what: str) -> SourceError:
    return SourceError(
        f"{path}: {where[:150]} has {what}, code that runs by itself when the file is opened or the network is called "
        "(quantised networks have it), which is not done here. Save a network of plain floats without it: "
        "torch.jit.save(torch.jit.script(model.eval()), 'net.pt')"
    )


def _tree(content: bytes) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        SyntaxError: it is no Python.
        ValueError: no TorchScript.
        MemoryError, RecursionError: it is nested too deeply.
    """
    dots = max(piece.count(b".") for piece in re.split(rb"[^\w\s\\.]", content))
    if dots > _MOST_DOTS or _NO_SCRIPT.search(content):
        raise ValueError("it is not what PyTorch writes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in texts
        return ast.parse(content)


def _texts(tree: ast.expr | None) -> tuple[str, ...]:
    """The texts of a list."""
    items: Sequence[ast.expr] = tree.elts if isinstance(tree, ast.List) else ()
    return tuple(item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str))


def dotted(tree: ast.expr) -> str:
    """A chain of names as one text; "" where it is something else.

    Example:
        >>> dotted(ast.parse("torch.nn.functional.relu", mode="eval").body)
        'torch.nn.functional.relu'
    """
    names: list[str] = []
    while isinstance(tree, ast.Attribute):
        names.append(tree.attr)
        tree = tree.value
    return ".".join([tree.id, *reversed(names)]) if isinstance(tree, ast.Name) else ""
