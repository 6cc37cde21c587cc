"""A graph of TensorFlow as a table of operations, and what of it is left at inference.

Training graphs ask a placeholder whether they are training (`Switch` and `Merge`), draw random masks (dropout) and
normalise by the batch. Here every such place gets the one meaning that it has when the network is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from regraft.errors import SourceError
from regraft.source.graph.graph import MOST_NODES
from regraft.source.messages import parsed
from regraft.source.tf1.checkpoint import tensor_array
from regraft.source.tf1.schema import messages

Ref = tuple[str, int]
"""An operation's name and the number of its output."""

PASSING = {
    "Identity", "StopGradient", "CheckNumerics", "Snapshot", "PreventGradient", "ReadVariableOp", "EnsureShape",
    "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs", "Assert", "Print", "IdentityN",
}  # fmt: skip
INPUTS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "IteratorGetNext", "OneShotIterator")
VARIABLES = {"VariableV2", "Variable", "VarHandleOp", "AutoReloadVariable"}
RANDOM = {
    "RandomUniform",
    "RandomStandardNormal",
    "TruncatedNormal",
    "StatelessRandomUniformV2",
    "StatelessRandomUniform",
}
BOOL = 10


def is_input(op: str) -> bool:
    """Whether examples enter through operations of this kind."""
    return op in INPUTS or "Dequeue" in op


@dataclass(frozen=True)
class Op:
    """One operation.

    Args:
        name: as in the file.
        op: its kind, as in the file.
        inputs: what it reads.
        controls: operations that have to run before it.
        attributes: messages by name.
    """

    name: str
    op: str
    inputs: tuple[Ref, ...]
    controls: tuple[str, ...]
    attributes: dict[str, Any]

    def text(self, name: str, default: str = "") -> str:
        """An attribute that is text."""
        return self.attributes[name].s.decode("utf-8", "replace") if name in self.attributes else default

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number with a fraction."""
        return self.attributes[name].f if name in self.attributes else default

    def whole(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        return self.attributes[name].i if name in self.attributes else default

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute that is true or false."""
        return self.attributes[name].b if name in self.attributes else default

    def wholes(self, name: str) -> list[int]:
        """An attribute that is a list of whole numbers."""
        return list(self.attributes[name].list.i) if name in self.attributes else []

    def shape(self) -> list[int] | None:
        """The shape that the graph gives the first output; -1 is unknown, None an unknown number of axes."""
        found = self.attributes.get("shape") or self.attributes.get("_output_shapes") or None
        if found is None:
            return None
        shape = found.list.shape[0] if found.list.shape else found.shape
        if shape.unknown_rank or not shape.dim:
            return [] if found.HasField("shape") and not shape.unknown_rank else None
        return [dim.size for dim in shape.dim]

    def dtype(self) -> int:
        """TensorFlow's number of the first output's type."""
        for name in ("dtype", "T", "DstT"):
            if name in self.attributes:
                return self.attributes[name].type
        return 0


class Graph1:
    """A graph of TensorFlow 1.

    Args:
        path: for messages.
        ops: by name, in the file's order.
    """

    def __init__(self, path: Path, ops: dict[str, Op]) -> None:
        self.path = path
        self.ops = ops
        self._sources: dict[Ref, Ref] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """The graph of a `.meta` file.

        Raises:
            SourceError: the file is damaged, or its graph reads what it does not have.
            MissingExtra: protobuf is not installed.
        """
        found = parsed(messages()["MetaGraphDef"], path.read_bytes(), str(path)).graph_def
        if not found.node or len(found.node) > MOST_NODES:
            raise SourceError(
                f"{path} holds no graph, or one of over {MOST_NODES} operations. Copy it again, then pass it"
            )
        ops = {node.name: _op(node) for node in found.node}
        for op in ops.values():
            absent = [name for name in (*(name for name, _ in op.inputs), *op.controls) if name not in ops]
            if absent:
                raise SourceError(
                    f"{path} is damaged: {op.name!r} reads {absent[0]!r}, which is not there. Copy it again"
                )
        return cls(path, ops)

    def source(self, ref: Ref) -> Ref:
        """Where a value comes from, behind operations that only hand it on at inference.

        Raises:
            SourceError: operations that hand on in a circle, or a branch that does not depend on training alone.
        """
        passed: list[Ref] = []
        for _ in range(len(self.ops) + 1):
            op = self.ops[ref[0]]
            passed.append(ref)
            if ref in self._sources:
                ref = self._sources[ref]
            elif op.op in PASSING or op.op in ("Switch", "RefSwitch"):
                ref = op.inputs[ref[1] if op.op == "IdentityN" else 0] if op.inputs else self._empty(op)
            elif op.op in ("Merge", "RefMerge"):
                ref = self.live(op)
            if ref == passed[-1]:
                self._sources |= dict.fromkeys(passed, ref)
                return ref
        raise SourceError(f"{self.path} is damaged: {ref[0]!r} reads itself. Copy it again, then pass it")

    def _empty(self, op: Op) -> Ref:
        raise SourceError(f"{self.path} is damaged: {op.name!r} ({op.op}) reads nothing. Copy it again, then pass it")

    def live(self, merge: Op) -> Ref:
        """Which of a merge's inputs arrives at inference."""
        alive = [ref for ref in merge.inputs if self._arrives(ref)]
        if len(alive) != 1:
            raise SourceError(
                f"{self.path}: the branch {merge.name!r} depends on more than whether the network is trained. Choose "
                "an end tensor below it: load_source('model.ckpt#NAME')"
            )
        return alive[0]

    def _arrives(self, ref: Ref) -> bool:
        seen, queue = set(), [ref]
        while queue:
            name, output = queue.pop()
            op = self.ops[name]
            if op.op in ("Switch", "RefSwitch"):
                if output != int(self.truth(op.inputs[1] if len(op.inputs) > 1 else self._empty(op))):
                    return False
            elif (name, output) not in seen and op.op not in VARIABLES:
                seen.add((name, output))
                queue += [*op.inputs, *((control, 0) for control in op.controls)]
        return True

    def truth(self, ref: Ref) -> bool:
        """A condition at inference: whether the network is being trained is false.

        Raises:
            SourceError: it depends on something else.
        """
        negated = False
        for _ in range(len(self.ops) + 1):
            op = self.ops[ref[0]]
            if op.op in (*PASSING, "Switch", "LogicalNot") and op.inputs:
                negated, ref = negated ^ (op.op == "LogicalNot"), op.inputs[0]
            elif is_input(op.op) and op.dtype() in (BOOL, 0):
                return negated
            elif op.op == "Const":
                value = tensor_array(op.attributes["value"].tensor, self.path) if "value" in op.attributes else None
                if value is not None and value.size == 1:
                    return bool(value.reshape(())) ^ negated
                break
            else:
                break
        raise SourceError(
            f"{self.path}: a branch depends on {ref[0]!r}, not on whether the network is trained. Choose an end tensor "
            "below it: load_source('model.ckpt#NAME')"
        )

    def noise(self, start: str) -> set[str]:
        """Operations whose values are drawn anew at each call and do not depend on the examples: dropout's masks."""
        users = self.users()
        drawn = [op.name for op in self.ops.values() if op.op in RANDOM]
        return below(users, drawn, _SHAPES) - below(users, [start], _SHAPES)

    def above(self, name: str) -> set[str]:
        """The operations that one depends on, itself among them."""
        seen, queue = set(), [name]
        while queue:
            name = queue.pop()
            if name not in seen:
                seen.add(name)
                queue += [source for source, _ in self.ops[name].inputs]
        return seen

    def users(self) -> dict[str, list[Op]]:
        """For each operation those that read it."""
        found: dict[str, list[Op]] = {name: [] for name in self.ops}
        for op in self.ops.values():
            for name in dict.fromkeys(name for name, _ in op.inputs):
                found[name].append(op)
        return found


_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank"})


def _op(node: Any) -> Op:
    data = tuple(parse_ref(text) for text in node.input if not text.startswith("^"))
    controls = tuple(text[1:] for text in node.input if text.startswith("^"))
    return Op(node.name, node.op, data, controls, {entry.key: entry.value for entry in node.attr})


def parse_ref(text: str) -> Ref:
    """An operation or one of its outputs as TensorFlow writes it.

    Example:
        >>> parse_ref("dnn/hidden4/Relu:0"), parse_ref("split:2"), parse_ref("dnn/hidden4/Relu")
        (('dnn/hidden4/Relu', 0), ('split', 2), ('dnn/hidden4/Relu', 0))
    """
    name, colon, output = text.rpartition(":")
    return (name, int(output)) if colon and output.isascii() and output.isdigit() and len(output) < 6 else (text, 0)


# input and end ----------------------------------------------------------------------------------------

_LOSSES = {
    "Softmax", "LogSoftmax", "SparseSoftmaxCrossEntropyWithLogits", "SoftmaxCrossEntropyWithLogits", "ArgMax", "InTopK",
    "InTopKV2", "TopKV2",
}  # fmt: skip
_BEHIND = {
    "Softmax", "LogSoftmax", "Sigmoid", "Round", "Cast", "Reshape", "ArgMax", "Greater", "GreaterEqual", "Less",
}  # fmt: skip
_LOSS_ARITHMETIC = {"Mean", "Sum", "Square", "SquaredDifference", "Sub", "Abs", "Sqrt", "Neg"}
_COMPUTING = {"MatMul", "Conv2D", "DepthwiseConv2dNative", "BatchMatMul", "BatchMatMulV2"}
_NO_FLOATS = {"Shape", "Greater", "GreaterEqual", "Equal", "ArgMax", "Rank", "Size"}


def is_training_op(name: str) -> bool:
    """Whether an operation belongs to training or saving, judged by its scope."""
    return any(part == "gradients" or part == "save" or part.startswith("gradients_") for part in name.split("/"))


def find_input(graph: Graph1, end: str = "") -> Op:
    """The operation through which examples enter: the first that weights are applied to.

    Args:
        graph: all of it.
        end: has to depend on the input, if it is given.

    Raises:
        SourceError: there is none.
    """
    users, wanted = graph.users(), graph.above(end) if end else None
    options = [op for op in graph.ops.values() if is_input(op.op) and op.dtype() != BOOL and op.shape() != []]
    for op in sorted(options, key=lambda op: op.op not in INPUTS[:2]):
        reached = below(users, [op.name])
        if (wanted is None or op.name in wanted) and any(graph.ops[name].op in _COMPUTING for name in reached):
            return op
    raise SourceError(
        f"{graph.path} has no placeholder through which examples enter {end or 'a layer with weights'}. "
        "Its operations: regraft inspect"
    )


def below(users: dict[str, list[Op]], names: Sequence[str], stop: frozenset[str] = frozenset()) -> set[str]:
    """Everything that depends on operations, but for gradients and savers.

    Args:
        users: as `Graph1.users` gives them.
        names: of the operations.
        stop: kinds of operations that are not followed.
    """
    seen, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name not in seen and not is_training_op(name):
            seen.add(name)
            queue += [op.name for op in users[name] if op.op not in stop]
    return seen


def find_end(graph: Graph1, start: Op) -> Ref:
    """The scores: the last activation before the softmax or the loss, that depends on the examples alone.

    Raises:
        SourceError: there is none.
    """
    users = graph.users()
    flow = below(users, [start.name])
    labels: set[str] = set()
    for op in graph.ops.values():
        if is_input(op.op) and op.name != start.name and op.dtype() != BOOL and op.shape() != [] and not is_control(op):
            labels |= below(users, [op.name])
    options = [ref for ref in _scores(graph, flow) if ref[0] in flow - labels]
    options = options or [(name, 0) for name in flow - labels if _is_last(graph, users[name], flow - labels, name)]
    options = [ref for ref in (_before(graph, ref, start.name) for ref in options) if ref[0] != start.name]
    if not options:
        raise SourceError(
            f"{graph.path}: nothing depends on {start.name!r} alone. Name the end: load_source('model.ckpt#NAME')"
        )
    order = {name: i for i, name in enumerate(graph.ops)}
    return max(dict.fromkeys(options), key=lambda ref: (len(graph.above(ref[0]) & flow), -order[ref[0]]))


def is_control(op: Op) -> bool:
    """Whether a placeholder of unknown shape is dropout's probability, judged by its name."""
    return op.shape() in (None, []) and any(word in op.name.lower() for word in ("keep", "drop", "rate", "prob"))


def _scores(graph: Graph1, flow: set[str]) -> Iterator[Ref]:
    for op in graph.ops.values():
        if op.op in _LOSSES and op.inputs and not is_training_op(op.name) and op.inputs[0][0] in flow:
            yield op.inputs[0]


def _is_last(graph: Graph1, users: Sequence[Op], allowed: set[str], name: str) -> bool:
    return graph.ops[name].op not in _NO_FLOATS and not any(
        op.name in allowed and op.op not in _NO_FLOATS for op in users
    )


def _before(graph: Graph1, ref: Ref, start: str) -> Ref:
    """What a softmax or a loss is made of: the last activation that is a row for each example."""
    in_loss = False
    for _ in range(len(graph.ops)):
        op = graph.ops[ref[0]]
        in_loss |= _joins_examples(graph, op)
        operands = [need for need in op.inputs if graph.source(need)[0] != start] if in_loss else list(op.inputs)
        if op.name == start or not operands:
            break
        if op.op not in _BEHIND and op.op not in PASSING and not (in_loss and op.op in _LOSS_ARITHMETIC):
            break
        ref = operands[0]
        if in_loss and op.op in ("Sub", "SquaredDifference"):  # what is compared with the examples
            break
    return ref


def _joins_examples(graph: Graph1, op: Op) -> bool:
    """Whether an operation is a mean or sum over all examples."""
    if op.op not in ("Mean", "Sum") or len(op.inputs) != 2:
        return False
    axes = graph.ops[graph.source(op.inputs[1])[0]]
    if axes.op != "Const" or "value" not in axes.attributes:
        return axes.op == "Range"
    return 0 in tensor_array(axes.attributes["value"].tensor, graph.path)
