"""Averages of weights: along training, over epochs, and with the start.

A `State` holds the tensors that a plan trains, by name; what is not floating point (counters) is never averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
Merit = tuple[float, float]
Judge = Callable[[State], Merit]

DECAY = 0.99  # of the moving average: about the last hundred updates, fewer while there are not as many
INGREDIENTS = 5  # epochs that a soup may be made of
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way back to the start, which "auto" tries


def taken(network: nn.Module, names: Collection[str]) -> State:
    """Copies of some tensors of a network, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items() if name in names}


@torch.no_grad()
def put(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write tensors into a network, in place; every one must be there.

    Raises:
        KeyError: the network has no such tensor.
    """
    own = network.state_dict()
    for name, value in state.items():
        own[name].copy_(value)


class MovingAverage:
    """The exponential moving average of a network's trained tensors.

    Args:
        network: where they are.
        names: of the trained tensors.
    """

    def __init__(self, network: nn.Module, names: Collection[str]) -> None:
        self._own = {name: value for name, value in network.state_dict().items() if name in names}
        self.state: State = {name: value.detach().clone() for name, value in self._own.items()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights after some number of updates; the first ones count more, or the start would stay."""
        decay = min(DECAY, (1 + updates) / (10 + updates))
        for name, value in self._own.items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def load(self, state: State) -> None:
        """Go on from an earlier average."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """The network with the averaged tensors inside the block, and with its own again after it."""
        own = {name: value.detach().clone() for name, value in self._own.items()}
        put(network, self.state)
        try:
            yield
        finally:
            put(network, own)


def mean(states: Sequence[State]) -> State:
    """The plain average of some states."""
    first = states[0]
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in first.items()
    }


def between(end: State, start: State, share: float) -> State:
    """What lies a share of the way back from the end to the start.

    Example:
        >>> between({"w": torch.tensor([2.0])}, {"w": torch.tensor([0.0])}, 0.25)
        {'w': tensor([1.5000])}
    """
    return {
        name: torch.lerp(value, start[name], share) if value.is_floating_point() else value
        for name, value in end.items()
    }


def greedy_soup(states: Sequence[State], judge: Judge) -> tuple[State, list[int]]:
    """The average of the first state and of each further one that makes it no worse.

    Args:
        states: the best first.
        judge: how good a state is; more is better.

    Returns:
        The average, and which states went into it.

    References: Wortsman and others, 2022, arXiv:2203.05482.
    """
    chosen, best = [0], judge(states[0])
    for i in range(1, len(states)):
        merit = judge(mean([states[j] for j in (*chosen, i)]))
        if merit >= best:
            chosen, best = [*chosen, i], merit
    return mean([states[i] for i in chosen]), chosen


def best_share(end: State, start: State, judge: Judge) -> float:
    """How far back toward the start validation is best; among equals the least far.

    References: Wortsman and others, 2021, arXiv:2109.01903.
    """
    return max(SHARES, key=lambda share: (judge(between(end, start, share)), -share))
