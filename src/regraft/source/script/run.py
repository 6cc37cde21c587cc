"""A TorchScript program followed once, on shapes alone, down to the operations that it applies to a picture.

What Python would do (attributes, lists, branches, loops, arithmetic of known sizes) is done here and is gone
afterwards; what concerns tensors becomes a node of the graph. No code of the file is compiled or run: each kind of
statement, expression and function that is known is carried out by a function here, within a budget of steps.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from regraft.errors import first_line
from regraft.source.script.archive import Made, Object
from regraft.source.script.code import Code, ScriptClass, dotted
from regraft.source.script.ops import Operations, unread
from regraft.source.script.values import Member, Named, Number, Ref

_DEEPEST_CALLS = 60
_NOTHING = object()  # what a block gives that does not return
_NAMES = {"inf": float("inf"), "nan": float("nan")}
_FUNCTIONS = {"int": "Int", "float": "Float", "bool": "Bool", "str": "str", "print": "print", "max": "max",
              "min": "min", "abs": "abs", "round": "round", "len": "len", "list": "list"}  # fmt: skip
_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "NoneType": type(None), "List": list, "Tuple": tuple,
          "Dict": dict, "list": list, "tuple": tuple, "dict": dict}  # fmt: skip


@dataclass(frozen=True)
class _Module:
    """A module of the program, at a path."""

    attributes: Object
    path: str
    script: ScriptClass


@dataclass(frozen=True)
class _Function:
    """A function of the program."""

    tree: ast.FunctionDef


class Run:
    """One way through a program.

    Args:
        code: its classes and functions.
        constants: CONSTANTS.c0, c1 and so on: numbers, and values of the graph.
        operations: the graph, into which the way is entered.
    """

    def __init__(self, code: Code, constants: Sequence[Any], operations: Operations) -> None:
        self._code, self._constants, self._ops = code, constants, operations
        self._depth = 0
        self._held: dict[str, Any] = {}  # lists of modules by path: what is appended to them stays

    def follow(self, root: Object, inputs: Sequence[Any]) -> Any:
        """What a call of the outermost module gives.

        Raises:
            SourceError: it uses what is not read, does not take its input, or does not end.
        """
        try:
            with torch.device("meta"):
                return self._called(self._lifted(root, ""), "forward", list(inputs), {})
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            raise unread(f"a function as it cannot be used ({first_line(error)})") from error

    # functions and statements -------------------------------------------------------------------------

    def _called(self, module: _Module, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a method of a module."""
        if method not in module.script.methods:
            raise unread(f"the method {method!r} of {module.script.name[:100]}, which is not there")
        with self._inside(module.path):
            return self._function(module.script.methods[method], [module, *args], kwargs)

    @contextmanager
    def _inside(self, path: str) -> Iterator[None]:
        enters = bool(path) and path not in self._ops.scope[-1:]
        self._ops.scope += [path] if enters else []
        try:
            yield
        finally:
            del self._ops.scope[len(self._ops.scope) - enters :]

    def _function(self, tree: ast.FunctionDef, args: list[Any], kwargs: dict[str, Any]) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST_CALLS:
            raise unread("calls inside calls without end")
        names = [argument.arg for argument in tree.args.args]
        defaults = tree.args.defaults
        given = dict(zip(names[len(names) - len(defaults) :], (self._value(d, {}) for d in defaults), strict=True))
        given |= dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or set(given) != set(names):
            raise unread(f"a call of {tree.name[:100]} with arguments that it does not take")
        found = self._block(tree.body, given)
        self._depth -= 1
        return None if found is _NOTHING else found

    def _block(self, statements: Sequence[ast.stmt], names: dict[str, Any]) -> Any:
        for statement in statements:
            self._ops.spend(1)
            how = _STATEMENTS.get(type(statement))
            if how is None:
                raise unread(f"the statement {type(statement).__name__} of Python")
            found = how(self, statement, names)
            if found is not _NOTHING:
                return found
        return _NOTHING

    def _assign(self, statement: ast.Assign, names: dict[str, Any]) -> Any:
        value = self._value(statement.value, names)
        for target in statement.targets:
            self._bind(target, value, names)
        return _NOTHING

    def _annotated(self, statement: ast.AnnAssign, names: dict[str, Any]) -> Any:
        if statement.value is not None:
            self._bind(statement.target, self._value(statement.value, names), names)
        return _NOTHING

    def _bind(self, target: ast.expr, value: Any, names: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
        elif isinstance(target, ast.Tuple):
            parts = value.values if isinstance(value, Named) else value
            if not isinstance(parts, list | tuple) or len(parts) != len(target.elts):
                raise unread(f"{len(target.elts)} names for what has another number of parts")
            for inner, part in zip(target.elts, parts, strict=True):
                self._bind(inner, part, names)
        else:
            raise unread("a module that changes its own attributes")

    def _expression(self, statement: ast.Expr, names: dict[str, Any]) -> Any:
        self._value(statement.value, names)
        return _NOTHING

    def _if(self, statement: ast.If, names: dict[str, Any]) -> Any:
        taken = statement.body if self._truth(self._value(statement.test, names)) else statement.orelse
        return self._block(taken, names)

    def _while(self, statement: ast.While, names: dict[str, Any]) -> Any:
        while self._truth(self._value(statement.test, names)):
            self._ops.spend(1)
            found = self._block(statement.body, names)
            if found is not _NOTHING:
                return found
        return _NOTHING

    def _for(self, statement: ast.For, names: dict[str, Any]) -> Any:
        items = self._value(statement.iter, names)
        if not isinstance(items, list | tuple | range):
            raise unread("a loop over what is no list")
        for item in items:
            self._ops.spend(1)
            self._bind(statement.target, item, names)
            found = self._block(statement.body, names)
            if found is not _NOTHING:
                return found
        return _NOTHING

    def _return(self, statement: ast.Return, names: dict[str, Any]) -> Any:
        return None if statement.value is None else self._value(statement.value, names)

    def _truth(self, value: Any) -> bool:
        known = self._ops.known(value)
        if isinstance(known, Ref):
            raise unread("a branch or loop that depends on the values of the pictures")
        return bool(known)

    # expressions --------------------------------------------------------------------------------------

    def _value(self, tree: ast.expr, names: Mapping[str, Any]) -> Any:
        self._ops.spend(1)
        how = _EXPRESSIONS.get(type(tree))
        if how is None:
            raise unread(f"the expression {type(tree).__name__} of Python")
        return how(self, tree, names)

    def _constant(self, tree: ast.Constant, names: Mapping[str, Any]) -> Any:
        if not isinstance(tree.value, int | float | str | None):
            raise unread(f"a constant of the type {type(tree.value).__name__}")
        return tree.value

    def _name(self, tree: ast.Name, names: Mapping[str, Any]) -> Any:
        if tree.id in names:
            return names[tree.id]
        if tree.id in _NAMES:
            return _NAMES[tree.id]
        raise unread(f"the name {tree.id[:100]!r}, which nothing says")

    def _list(self, tree: ast.List, names: Mapping[str, Any]) -> Any:
        return [self._value(item, names) for item in tree.elts]

    def _tuple(self, tree: ast.Tuple, names: Mapping[str, Any]) -> Any:
        return tuple(self._value(item, names) for item in tree.elts)

    def _dict(self, tree: ast.Dict, names: Mapping[str, Any]) -> Any:
        if None in tree.keys:
            raise unread("a dictionary made of others")
        keys = [self._value(key, names) for key in tree.keys if key is not None]
        return dict(zip(keys, (self._value(value, names) for value in tree.values), strict=True))

    def _unary(self, tree: ast.UnaryOp, names: Mapping[str, Any]) -> Any:
        op = {ast.USub: "neg", ast.Not: "__not__"}.get(type(tree.op))
        if op is None:
            raise unread(f"the operator {type(tree.op).__name__} of Python")
        return self._ops.apply(op, [self._value(tree.operand, names)], {})

    def _either(self, tree: ast.IfExp, names: Mapping[str, Any]) -> Any:
        return self._value(tree.body if self._truth(self._value(tree.test, names)) else tree.orelse, names)

    def _subscript(self, tree: ast.Subscript, names: Mapping[str, Any]) -> Any:
        items, at = self._value(tree.value, names), self._value(tree.slice, names)
        if isinstance(items, Named):
            items = items.values
        if not isinstance(items, list | tuple | dict | str):
            raise unread("an index into what is no list")
        return items[self._ops.known(at)]

    def _attribute(self, tree: ast.Attribute, names: Mapping[str, Any]) -> Any:
        name = dotted(tree)
        if name.startswith("CONSTANTS.c") and "CONSTANTS" not in names:
            return self._constants[int(name.removeprefix("CONSTANTS.c"))]
        if name.startswith("__torch__."):
            return self._named(name)
        return self._got(self._value(tree.value, names), tree.attr)

    def _named(self, name: str) -> Any:
        """A function, named tuple or member of an enumeration, by its full name."""
        function = self._code.function(name)
        if function is not None:
            return _Function(function)
        script = self._code.find_class(name)
        if script is not None and script.fields is not None:
            return script
        owner, _, member = name.rpartition(".")
        script = self._code.find_class(owner)
        if script is None or not script.is_enum or member not in script.constants:
            raise unread(f"{name[:150]}, which is no function of the file")
        return Member(owner, self._value(script.constants[member], {}))

    def _got(self, owner: Any, name: str) -> Any:
        """An attribute."""
        if isinstance(owner, Named) and name in owner.fields:
            return owner.values[owner.fields.index(name)]
        if not isinstance(owner, _Module):
            raise unread(f"the attribute {name[:100]!r} of what is no module")
        if name == "training":
            return False
        if name in owner.attributes:
            return self._lifted(owner.attributes[name], f"{owner.path}.{name}" if owner.path else name)
        if name in owner.script.constants:
            return self._value(owner.script.constants[name], {})
        raise unread(f"the attribute {name[:100]!r}, which {owner.script.name[:100]} does not have")

    def _lifted(self, value: Any, path: str) -> Any:
        """What an attribute of an object stands for."""
        if isinstance(value, Object):
            script = self._code.find_class(value.kind)
            if script is None:
                raise unread(f"an object of the class {value.kind[:150]}, which the file does not define")
            return _Module(value, path, script)
        if isinstance(value, Made):
            if value.function.startswith("__torch__."):
                return Member(value.function.replace(" ", "."), value.arguments)
            if not value.is_tensor or f"self.{path}" not in self._ops:
                raise unread(f"the attribute {path[:100]!r}, made by {value.function.replace(' ', '.')[:100]}")
            return Ref(f"self.{path}")
        if isinstance(value, list | tuple | dict):
            if path not in self._held:
                self._ops.spend(len(value))
                self._held[path] = self._items(value, path)
            return self._held[path]
        return value

    def _items(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: self._lifted(inner, f"{path}.{key}") for key, inner in value.items()}
        return type(value)(self._lifted(inner, f"{path}.{i}") for i, inner in enumerate(value))

    # calls --------------------------------------------------------------------------------------------

    def _call(self, tree: ast.Call, names: Mapping[str, Any]) -> Any:
        if any(keyword.arg is None for keyword in tree.keywords):
            raise unread("a call with arguments from a dictionary")
        name = dotted(tree.func)
        if name in _SPECIAL and name not in names:
            return _SPECIAL[name](self, tree.args, names)
        args = [self._value(argument, names) for argument in tree.args]
        kwargs = {str(keyword.arg): self._value(keyword.value, names) for keyword in tree.keywords}
        library, _, op = name.rpartition(".")
        if library in ("torch", "ops.prim", "ops.aten") and name.partition(".")[0] not in names:
            return self._ops.apply(op, args, kwargs)
        if name in _FUNCTIONS and name not in names:
            return self._ops.apply(_FUNCTIONS[name], args, kwargs)
        if name.startswith(("ops.", "torch.")):
            raise unread(f"{name[:150]}, an operator of another library")
        if isinstance(tree.func, ast.Attribute) and not name.startswith("__torch__."):
            owner = self._value(tree.func.value, names)
            if isinstance(owner, _Module):
                return self._called(owner, tree.func.attr, args, kwargs)
        return self._applied(self._value(tree.func, names), args, kwargs)

    def _applied(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if isinstance(function, _Function):
            return self._function(function.tree, args, kwargs)
        if isinstance(function, ScriptClass) and function.fields is not None and len(args) == len(function.fields):
            return Named(function.fields, tuple(args))
        raise unread("a call of what is no function of the file")

    def _first_of(self, trees: list[ast.expr], names: Mapping[str, Any]) -> Any:
        """annotate(type, value) and unchecked_cast(type, value)."""
        return self._value(trees[1], names)

    def _uninitialized(self, trees: list[ast.expr], names: Mapping[str, Any]) -> Any:
        return None

    def _isinstance(self, trees: list[ast.expr], names: Mapping[str, Any]) -> Any:
        kinds = trees[1].elts if isinstance(trees[1], ast.List | ast.Tuple) else [trees[1]]
        value = self._value(trees[0], names)
        return any(self._is(value, kind) for kind in kinds)

    def _is(self, value: Any, kind: ast.expr) -> bool:
        name = dotted(kind.value if isinstance(kind, ast.Subscript) else kind)
        if name == "Optional" and isinstance(kind, ast.Subscript):
            return value is None or self._is(value, kind.slice)
        is_tensor = isinstance(value, Number) or (isinstance(value, Ref) and self._ops.is_tensor(value))
        if name == "Tensor" or is_tensor:
            return is_tensor and name == "Tensor"
        wanted = _TYPES.get(name)
        if wanted is None:
            raise unread(f"a question for the type {name[:100]}")
        known = self._ops.known(value)
        return isinstance(known, wanted) and not (wanted is int and isinstance(known, bool))

    def _getattr(self, trees: list[ast.expr], names: Mapping[str, Any]) -> Any:
        return self._got(self._value(trees[0], names), str(self._value(trees[1], names)))

    def _range(self, trees: list[ast.expr], names: Mapping[str, Any]) -> Any:
        return range(*(self._ops.known(self._value(tree, names)) for tree in trees))


_STATEMENTS: dict[type[ast.stmt], Callable[..., Any]] = {
    ast.Assign: Run._assign, ast.AnnAssign: Run._annotated, ast.Expr: Run._expression, ast.If: Run._if,
    ast.While: Run._while, ast.For: Run._for, ast.Return: Run._return, ast.Pass: lambda *_: _NOTHING,
}  # fmt: skip
_EXPRESSIONS: dict[type[ast.expr], Callable[..., Any]] = {
    ast.Constant: Run._constant, ast.Name: Run._name, ast.List: Run._list, ast.Tuple: Run._tuple,
    ast.Dict: Run._dict, ast.UnaryOp: Run._unary, ast.IfExp: Run._either, ast.Subscript: Run._subscript,
    ast.Attribute: Run._attribute, ast.Call: Run._call,
}  # fmt: skip
# Functions whose arguments are not all values.
_SPECIAL: dict[str, Callable[..., Any]] = {
    "annotate": Run._first_of, "unchecked_cast": Run._first_of, "uninitialized": Run._uninitialized,
    "isinstance": Run._isinstance, "getattr": Run._getattr, "range": Run._range,
}  # fmt: skip
