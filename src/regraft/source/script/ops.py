"""What a TorchScript program's operations give: of plain values at once, of tensors as nodes of a graph.

Tensors are on the meta device, so that only their shapes are known. The number of pictures in them is prime: a size
that it divides stays a value of the graph, for which the operations of sizes are entered too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from regraft.errors import SourceError
from regraft.source.pt2.net import RE_EXPORT, Pt2Node, checked
from regraft.source.pt2.ops import op_name, writes
from regraft.source.pt2.program import check_written
from regraft.source.script.fused import FUSED
from regraft.source.script.overloads import Call, chosen
from regraft.source.script.values import ASKED, IN_GRAPH, OF_LISTS, OF_NUMBERS, Device, Number, Ref, bounded

_MOST_STEPS, _MOST_NODES = 400_000, 10_000
_TYPES = {torch.float32: 6, torch.int64: 4, torch.int32: 3, torch.int16: 2, torch.int8: 1, torch.uint8: 0,
          torch.bool: 11, torch.float64: 7}  # fmt: skip
# Of a tensor that holds one number, that number.
_UNWRAPS = ("Int", "Float", "Bool", "ScalarImplicit", "IntImplicit", "FloatImplicit", "item")
_VALUES = (*_UNWRAPS, "equal", "is_nonzero", "allclose", "tolist")  # which depend on more than shapes


def unread(what: str) -> SourceError:
    """What to say of a program that does something that is not done here."""
    return SourceError(f"the program uses {what}, which is not read here. Export the network instead: {RE_EXPORT}")


class Operations:
    """The graph as far as it was followed.

    Args:
        values: of the graph, on the meta device; "" is the device. What is followed is entered.
        batch: the number of pictures in them; 0 where every size is to be taken as it is.
    """

    def __init__(self, values: dict[str, Any], batch: int) -> None:
        self.nodes: list[Pt2Node] = []
        self.scope: list[str] = []
        self._values, self._batch = values, batch
        self._left = _MOST_STEPS
        self._counts: dict[str, int] = {}

    def spend(self, steps: int) -> None:
        """Count steps.

        Raises:
            SourceError: there were too many.
        """
        self._left -= steps
        if self._left < 0:
            raise unread(f"more than {_MOST_STEPS:,} steps for one picture")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def apply(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What an operation gives.

        Args:
            op: name, without library.
            args: plain values, and values of the graph.
            kwargs: likewise.

        Raises:
            SourceError: it is not let through, or does not take these.
        """
        if args and op in _QUERIES and (self.is_tensor(args[0]) or isinstance(args[0], Number)):
            return _QUERIES[op](self, *args, **kwargs)
        if op in _PLAIN:
            return _PLAIN[op](self, *args, **kwargs)
        if op in OF_LISTS and args and isinstance(args[0], list | tuple | dict | str):
            args = [self.known(value) for value in args] if op in ("eq", "ne", "__contains__") else args
            return self._weighed(OF_LISTS[op](*args, **kwargs))
        tensors = any(self._has_tensor(value) for value in (*args, *kwargs.values()))
        if op in _VALUES and tensors:
            raise unread(f"{op}: a number or a branch that depends on the values of the pictures")
        return self._number(op, args, kwargs) if op in OF_NUMBERS and not tensors else self._node(op, args, kwargs)

    def _weighed(self, value: Any) -> Any:
        self.spend(len(value) if isinstance(value, list | tuple | dict | str) else 1)
        return bounded(value)

    # plain values -------------------------------------------------------------------------------------

    def known(self, value: Any) -> Any:
        """A plain value, an open size as it is in the example; tensors as they are."""
        if isinstance(value, Number):
            return self.known(value.value)
        if isinstance(value, Ref) and not self.is_tensor(value):
            return self._values[value.name]
        if isinstance(value, list | tuple):
            return [self.known(inner) if isinstance(inner, Ref | Number) else inner for inner in value]
        return value

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a tensor of the graph."""
        return isinstance(value, Ref) and isinstance(self._values[value.name], torch.Tensor)

    def _has_tensor(self, value: Any) -> bool:
        return any(self.is_tensor(inner) for inner in (value if isinstance(value, list | tuple) else [value]))

    def _number(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Arithmetic of numbers; in the graph where a size is open."""
        if op in ("add", "sub", "rsub") and (len(args) == 3 or "alpha" in kwargs):  # a + alpha b
            first, second, alpha = [*args, *kwargs.values()]
            return self._number(op, [first, self._number("mul", [second, alpha], {})], {})
        if op == "rsub":
            return self._number("sub", args[::-1], {})
        wrapped = any(isinstance(value, Number) for value in args) and op not in (*_UNWRAPS, *ASKED)
        plain = [value.value if isinstance(value, Number) else value for value in args]
        if any(isinstance(value, Ref) for value in plain) and op not in ASKED:
            result = self._of_sizes(op, plain, kwargs)
        else:
            result = self._weighed(OF_NUMBERS[op](*(self.known(value) for value in plain), **kwargs))
        return Number(result) if wrapped else result

    def _of_sizes(self, op: str, plain: list[Any], kwargs: dict[str, Any]) -> Ref:
        whole = op == "div" and kwargs.get("rounding_mode") in ("floor", "trunc")  # the same, as no size is negative
        name = "floordiv" if whole else "true_divide" if op == "div" else op
        if name not in IN_GRAPH:
            raise unread(f"{op} of a size that depends on the number of pictures")
        return self._entered(Pt2Node(IN_GRAPH[name], (), tuple(map(_as_json, plain)), {}, ()))[0]

    # tensors ------------------------------------------------------------------------------------------

    def _node(self, op: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """An operation on tensors."""
        if op in FUSED:
            return FUSED[op](self.apply, *args, **kwargs)
        if writes(f"torch.ops.aten.{op}.") and args and isinstance(args[0], Ref) and args[0].name.startswith("self."):
            check_written(args[0].name.removeprefix("self."))
            return args[0]
        call = chosen(op, args, kwargs, self.is_tensor)
        if call is None:
            where = f" in {self.scope[-1][:100]}" if self.scope else ""
            raise unread(f"the operation {op[:100]}{where} as it is called there")
        return self._called(call)

    def _called(self, call: Call) -> Any:
        """The results of an operation as TorchScript has them."""
        args = tuple(self._argument(value) for value in call.args)
        kwargs = {name: self._argument(value) for name, value in call.kwargs.items()}
        found = self._entered(Pt2Node(call.target, (), args, kwargs, ()))
        return found if call.gives == "list" else tuple(found) if call.gives == "tuple" else found[0]

    def _argument(self, value: Any) -> Any:
        """An argument as plain JSON; a number that has to be a tensor becomes one."""
        if isinstance(value, list | tuple):
            return [self._argument(inner) for inner in value]
        if isinstance(value, Number):
            kind = {"dtype": "float32" if isinstance(self.known(value), float) else "int64"}
            kwargs = {"dtype": kind, "device": {"device": 0}}
            return _as_json(self._entered(Pt2Node(_AS_TENSOR, (), (_as_json(value.value),), kwargs, ()))[0])
        return _as_json(value)

    def _entered(self, node: Pt2Node) -> list[Ref]:
        """Enter a node where it stands; its results."""
        if len(self.nodes) >= _MOST_NODES:
            raise unread(f"more than {_MOST_NODES:,} operations")
        base = op_name(node.target).rpartition(".")[2].rstrip("_") or "value"

        def named(results: Sequence[Any]) -> tuple[str, ...]:
            kept = (torch.Tensor, int, float)
            return tuple(self._fresh(base) if isinstance(result, kept) else "" for result in results)

        node = Pt2Node(node.target, tuple(self.scope), node.args, node.kwargs, ())
        self.nodes.append(checked(node, self._values, named))
        self.spend(len(self.nodes[-1].outputs))
        return [Ref(name) for name in self.nodes[-1].outputs]

    def _fresh(self, base: str) -> str:
        while True:
            count = self._counts[base] = self._counts.get(base, -1) + 1
            name = f"{base}_{count}" if count else base
            if name not in self._values:
                return name

    # questions ----------------------------------------------------------------------------------------

    def _shape(self, value: Any) -> tuple[int, ...]:
        return () if isinstance(value, Number) else tuple(self._values[value.name].shape)

    def _size(self, value: Any, at: int | None = None) -> Any:
        """A side, or all; one that the number of pictures divides stays open."""
        n = len(self._shape(value))
        return [self._side(value, i) for i in range(n)] if at is None else self._side(value, range(n)[at])

    def _side(self, value: Any, at: int) -> Any:
        side = self._shape(value)[at]
        if not self._batch or not side or side % self._batch:
            return side
        return self._entered(Pt2Node("torch.ops.aten.sym_size.int", (), ({"value": value.name}, at), {}, ()))[0]

    def _numel(self, value: Any) -> Any:
        total: Any = 1
        for side in self._size(value):
            total = self._number("mul", [total, side], {})
        return total

    def _dtype(self, value: Any) -> int:
        if isinstance(value, Number):
            return 6 if isinstance(self.known(value), float) else 4
        return _TYPES[self._values[value.name].dtype]

    def _is_real(self, value: Any) -> bool:
        return self._dtype(value) in (6, 7)

    def _raised(self, text: Any = "", *kind: Any) -> Any:
        raise SourceError(
            f"the program does not take such pictures: it raises {str(text)[:150]!r}. Pass the input that it was "
            "made for: load_source('net.pt', input=InputSpec(size=(3, 224, 224)))"
        )

    def _is(self, a: Any, b: Any) -> bool:
        return a is b or (isinstance(a, Ref) and a == b)

    def _is_not(self, a: Any, b: Any) -> bool:
        return not self._is(a, b)

    def _as_number(self, value: Any, *options: Any, **named: Any) -> Any:
        if not isinstance(value, int | float | Ref) or self.is_tensor(value):
            raise unread("a tensor made of a list")
        return Number(value)

    def _itself(self, value: Any, *options: Any) -> Any:
        return value


def _answer(value: Any) -> Callable[..., Any]:
    return lambda operations, *args, **kwargs: value


_AS_TENSOR = "torch.ops.aten.scalar_tensor.default"
# By name: what is asked of tensors.
_QUERIES: dict[str, Callable[..., Any]] = {
    "size": Operations._size, "shape": Operations._size, "numel": Operations._numel,
    "dim": lambda operations, value: len(operations._shape(value)),
    "len": lambda operations, value: operations._side(value, 0),
    "dtype": Operations._dtype, "is_floating_point": Operations._is_real, "data": Operations._itself,
    "device": _answer(Device()), "layout": _answer(0), "requires_grad": _answer(True), "is_contiguous": _answer(True),
    **dict.fromkeys(("is_cuda", "is_cpu", "is_complex", "is_nested", "is_sparse", "is_quantized", "is_mkldnn",
                     "is_xpu", "is_mps", "is_meta", "is_vulkan"), _answer(False)),
}  # fmt: skip
# By name: what is asked of nothing, or of values of any kind. Gradients are on, so that no way is taken without them.
_PLAIN: dict[str, Callable[..., Any]] = {
    "NumToTensor": Operations._as_number, "tensor": Operations._as_number, "device": _answer(Device()),
    "type": _answer("cpu"), "__is__": Operations._is, "__isnot__": Operations._is_not,
    "unchecked_unwrap_optional": Operations._itself, "RaiseException": Operations._raised,
    "warn": _answer(None), "print": _answer(None), "is_grad_enabled": _answer(True), "is_scripting": _answer(True),
    **dict.fromkeys(("is_autocast_enabled", "is_autocast_cpu_enabled", "is_tracing"), _answer(False)),
}  # fmt: skip


def _as_json(value: Any) -> Any:
    """A plain value or a value of the graph as an exported program has it."""
    if isinstance(value, Ref):
        return {"value": value.name}
    if isinstance(value, float) and value - value != 0:  # infinite or not a number, which JSON lacks
        return {"float": str(value)}
    return value
