"""Readable names: which module an activation is the output of."""

from __future__ import annotations

from torch import fx, nn

Call = tuple[str, str]
"""One call of a module: a key that is unique to the call, and the module's path."""


def calls(node: fx.Node) -> list[Call]:
    """The module calls that a node runs in, outermost first, without the model itself."""
    stack = node.meta.get("nn_module_stack", {})
    paths = [(key, str(value[0]).partition("@")[0]) for key, value in stack.items()]
    return [(key, path) for key, path in paths if path]


def left_modules(node: fx.Node) -> list[str]:
    """The modules whose output a node is, outermost first: no user of the node runs inside them."""
    inside = {call for user in node.users for call in calls(user)}
    return [path for call, path in calls(node) if (call, path) not in inside]


def op_name(node: fx.Node) -> str:
    """What a node computes, in one word: "relu", "add"."""
    overload = getattr(node.target, "overloadpacket", None)
    return getattr(overload, "__name__", None) or getattr(node.target, "__name__", None) or str(node.target)


def is_leaf(model: nn.Module, path: str) -> bool:
    """Whether the module has no modules inside (a layer, not a block)."""
    try:
        return not any(True for _ in model.get_submodule(path).children())
    except AttributeError:
        return True


def readable(node: fx.Node, leaves: set[str]) -> str:
    """A name for an activation: the innermost numbered block it leaves, else the outermost module it leaves.

    Args:
        node: the activation.
        leaves: the paths of modules without modules inside.
    """
    left = left_modules(node)
    blocks = [path for path in left if path.rpartition(".")[2].isdigit() and path not in leaves]
    if left:
        return blocks[-1] if blocks else left[0]
    return inner_name(node)


def inner_name(node: fx.Node) -> str:
    """A name for an activation inside a module: the module and the operation."""
    inside = calls(node)
    return f"{inside[-1][1]}#{op_name(node)}" if inside else node.name


def unique_names(nodes: list[fx.Node], leaves: set[str]) -> list[str]:
    """A name for each node, no two the same; a name taken already is made longer by the node's own."""
    names: list[str] = []
    taken = {"input", "output"}
    for node in nodes:
        options = (readable(node, leaves), inner_name(node), f"{inner_name(node)}:{node.name}", node.name)
        name = next(option for option in options if option not in taken)
        taken.add(name)
        names.append(name)
    return names
