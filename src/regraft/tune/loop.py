"""The one training loop: every stage that trains by gradient goes through `train`.

    start      checkpoint, or: groups, optimizer, first evaluation (epoch 0)
    round      [seed ▸ [batch ▸ forward ▸ loss ▸ backward ▸ clip ▸ rate ▸ step]…]… one or more epochs
               ▸ evaluate ▸ assert frozen is unchanged ▸ keep the best ▸ checkpoint ▸ event
    finish     the kept weights, or an average with others or the start, go back into the network

Shape letters: B rows of one batch, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.cut import rows_at_once
from regraft.digest import digest_json, digest_state
from regraft.errors import RecipeError
from regraft.tune.averaging import INGREDIENTS, MovingAverage, State, best_share, between, greedy_soup, put, taken
from regraft.tune.checkpoint import read_checkpoint, write_checkpoint
from regraft.tune.history import History, HistoryRow, merit, waited
from regraft.tune.network import Network
from regraft.tune.objective import Objective, Pull, clip_gradients
from regraft.tune.optim import make_optimizer, parameter_groups, rate_factor
from regraft.tune.plan import Plan
from regraft.tune.reestimate import reestimate
from regraft.tune.rows import Rows, batches, epoch_order


@dataclass(frozen=True)
class Event:
    """Something that happened in the loop.

    Args:
        kind: "start" (after epoch 0 or the checkpoint was read), "step", "epoch" (after its checkpoint was
            written), or "finish".
        epoch: epochs done; for "step" the one under way.
        n_epochs: planned.
        updates: optimizer steps done.
        n_updates: planned.
        row: the newest evaluation.
    """

    kind: Literal["start", "step", "epoch", "finish"]
    epoch: int
    n_epochs: int
    updates: int
    n_updates: int
    row: HistoryRow


def train(
    plan: Plan,
    network: nn.Module,
    train: Rows,
    val: Rows | None,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    time_limit: float | None = None,
    origin: State | None = None,
) -> History:
    """Train a network as its plan says; leaves it in eval mode on the CPU with the kept epoch's weights.

    Args:
        plan: which parameters, at what rates, for how long.
        network: takes a batch of rows, gives logits (B, K).
        train: rows to learn from.
        val: rows to choose the epoch by; None keeps the last one.
        seed: with the epoch it fixes the order of the rows, their augmentation and dropout.
        device: "cpu" or "cuda".
        checkpoint: file written after each epoch; a run that finds it goes on from there and ends with the
            same weights and history as one that was never stopped.
        on_event: called at each event; what it raises ends the run, and the checkpoint stays.
        time_limit: seconds for the updates and the evaluation after the last of them.
        origin: values of what is trained that `l2_sp` pulls back to and `interpolate` goes back to; None takes the
            network's as it is.

    Returns:
        One row per epoch, beginning with epoch 0 before any update. A run whose loss or weights stop being numbers ends
        there: those of the last evaluation before count, and `History.diverged` says in which epoch it was.

    Raises:
        RecipeError: a parameter is in no group or in two, is trained but out of reach of the gradient, or a
            frozen tensor changed.
        RunError: the checkpoint belongs to another run.
    """
    loop = _Loop(plan, network, train, val, seed, device, checkpoint, on_event or (lambda event: None), origin)
    try:
        loop.start()
        while loop.epoch < plan.n_epochs and not loop.finished(time_limit):
            loop.run_round(time_limit)
        return loop.finish()
    finally:
        network.cpu().to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]


def epochs_between_evaluations(n_train: int, n_val: int) -> int:
    """So many that evaluation takes about a fifth of the time at most: a row costs three times as much to train on.

    Example:
        >>> epochs_between_evaluations(50, 360), epochs_between_evaluations(1000, 300)
        (10, 1)
    """
    return max(1, round(4 * n_val / (3 * n_train)))


class _Loop:
    """The state of one run, and its steps by name."""

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        train: Rows,
        val: Rows | None,
        seed: int,
        device: str,
        checkpoint: Path | None,
        tell: Callable[[Event], None],
        origin: State | None,
    ) -> None:
        self.plan, self.recipe, self.network = plan, plan.recipe, network
        self.train, self.val = train, val
        self.seed, self.device, self.checkpoint, self.tell = seed, torch.device(device), checkpoint, tell
        self.epoch = self.updates = self.diverged = 0
        self.every = epochs_between_evaluations(len(train), len(val) if val is not None else 0)
        self.judging = 0.0  # seconds of the longest evaluation so far
        self.rows: list[HistoryRow] = []
        self.best: list[tuple[HistoryRow, State]] = []  # the best first; more than one for a soup
        self.objective = Objective(plan.recipe, train.labels, plan.n_classes, plan.task)
        self.layout = torch.contiguous_format
        self.origin = origin

    # start ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.network.to(self.device)
        self.choose_layout()
        self.groups = parameter_groups(self.plan, self.network)
        self.optimizer = make_optimizer(self.plan, self.groups) if self.groups else None
        self.measure()
        self.first = self.origin or taken(self.network, self.plan.trained)
        self.pull = Pull(dict(self.network.named_parameters()), self.plan.pulls, self.first)
        self.average = MovingAverage(self.network, self.plan.trained) if self.recipe.average == "ema" else None
        self.frozen = self.digest_frozen()
        self.made_for = digest_json(
            [self.plan.to_dict() | {"seconds": 0, "bytes": 0}, self.seed, self.train.labels.tolist()]
        )
        self.began = time.perf_counter()
        if not self.resume():
            self.record(train_loss=None)
        self.say("start")

    def choose_layout(self) -> None:
        """Channels-last is faster for filters, but some networks reshape in ways that forbid it."""
        if not any(p.ndim == 4 for p in self.network.parameters()):
            return
        self.network.to(memory_format=torch.channels_last)
        self.layout = torch.channels_last
        try:
            with torch.no_grad():
                self.network.eval()(self.take(self.train, np.arange(min(2, len(self.train))), epoch=0))
        except RuntimeError:
            self.network.to(memory_format=torch.contiguous_format)
            self.layout = torch.contiguous_format

    def measure(self) -> None:
        """Batch-norm statistics that the plan wants from the training rows; a resumed run measures the same."""
        names = {name for row in self.plan.rows if row.batch_norm == "reestimate" for name in row.names}
        if names:
            order = batches(self.train, 256)
            assert isinstance(self.network, Network)
            reestimate(self.network, names, lambda: (self.take(self.train, part, epoch=0) for part in order))

    def resume(self) -> bool:
        state = self.checkpoint and read_checkpoint(self.checkpoint, made_for=self.made_for)
        if not state:
            return False
        self.network.load_state_dict(state["network"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load(state["average"])
        self.rows = [HistoryRow(**row) for row in state["rows"]]
        self.best = [(HistoryRow(**row), values) for row, values in state["best"]]
        self.epoch, self.updates = self.rows[-1].epoch, self.rows[-1].updates
        self.began -= self.rows[-1].seconds
        return True

    # one epoch --------------------------------------------------------------------------------------

    def run_round(self, time_limit: float | None) -> None:
        """Epochs up to the next evaluation."""
        losses = []
        for _ in range(min(self.every, self.plan.n_epochs - self.epoch)):
            if losses and self.out_of_time(time_limit):
                break
            losses.append(self.fit_epoch(self.epoch + 1, time_limit))
            self.epoch += 1
        self.record(train_loss=sum(losses) / len(losses))
        if self.diverged:
            return
        self.assert_frozen()
        self.save()
        self.say("epoch")

    def fit_epoch(self, epoch: int, time_limit: float | None) -> float:
        """The mean loss of an epoch, or of its first batches where the time is over before its end."""
        total, seen = torch.zeros((), device=self.device), 0
        # Seeding from (seed, epoch) makes dropout repeatable after a resume without saved generator state.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed * 1_000_003 + epoch)
            self.network.train()
            order = epoch_order(len(self.train), self.seed, epoch)
            for indices in batches(self.train, self.recipe.batch_size, order):
                total += self.step(indices, epoch) * len(indices)
                seen += len(indices)
                if self.out_of_time(time_limit):
                    break
        return float(total) / seen

    def step(self, indices: np.ndarray, epoch: int) -> Tensor:
        loss = self.loss(indices, epoch)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.updates == 0:
                self.assert_reached()
            self.pull()
            clip_gradients((p for group in self.groups for p in group["params"]), self.recipe)
            self.set_rates()
            self.optimizer.step()
        self.updates += 1
        if self.average:
            self.average.update(self.updates)
        self.say("step", epoch)
        return loss.detach()

    def loss(self, indices: np.ndarray, epoch: int) -> Tensor:
        batch, labels = self.take(self.train, indices, epoch), self.targets(self.train, indices)
        batch, shares = self.objective.prepared(batch, labels)
        if not self.recipe.contrastive:
            return self.objective(self.forward(batch), shares)
        assert isinstance(self.network, Network)
        with self.in_precision():
            features = self.network.features(batch)
            logits = self.network.head(features)
        return self.objective(logits.float(), shares, features.float())

    def take(self, rows: Rows, indices: np.ndarray, epoch: int) -> Tensor:
        batch = rows.batch(indices, epoch).to(self.device, non_blocking=True)
        return batch.contiguous(memory_format=self.layout) if batch.ndim == 4 else batch

    def targets(self, rows: Rows, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(rows.labels[indices]).to(self.device)

    def forward(self, batch: Tensor) -> Tensor:
        with self.in_precision():
            return self.network(batch).float()

    def in_precision(self) -> torch.autocast:
        fast = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)

    def set_rates(self) -> None:
        recipe = self.recipe
        factor = rate_factor(recipe.schedule, recipe.warmup, self.updates, self.plan.updates)
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            group["lr"] = group["top_lr"] * factor

    # after an epoch ---------------------------------------------------------------------------------

    def record(self, train_loss: float | None) -> None:
        with self.average.applied(self.network) if self.average else nullcontext():
            row = self.row(train_loss)
            if self.rows and not self.of_numbers(row):
                self.diverged = self.epoch
                return
            self.rows.append(row)
            self.keep(row)

    def of_numbers(self, row: HistoryRow) -> bool:
        """Whether losses and weights are finite: what is not never becomes it again."""
        losses = [loss for loss in (row.train_loss, row.val_loss) if loss is not None]
        state = self.network.state_dict()
        return all(map(math.isfinite, losses)) and all(bool(state[n].isfinite().all()) for n in self.plan.trained)

    def row(self, train_loss: float | None = None) -> HistoryRow:
        began = time.perf_counter()
        loss, accuracy = self.evaluate() if self.val is not None else (None, None)
        self.judging = max(self.judging, time.perf_counter() - began)
        return HistoryRow(self.epoch, self.updates, time.perf_counter() - self.began, train_loss, loss, accuracy)

    def keep(self, row: HistoryRow) -> None:
        """Remember the weights if they are among the best; the newest always, where validation is not to choose."""
        newest = self.val is None or self.recipe.keep == "last"
        place = 0 if newest else sum(merit(row) <= merit(old) for old, _ in self.best)
        most = INGREDIENTS if self.recipe.average == "soup" else 1
        if place < most:
            self.best.insert(place, (row, taken(self.network, self.plan.trained)))
            del self.best[most:]

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Mean loss and mean merit (cross-entropy and accuracy, of classes) on the validation rows."""
        assert self.val is not None
        task = self.plan.task
        self.network.eval()
        loss = correct = 0.0
        for indices in batches(self.val, rows_at_once(self.network)):
            logits = self.forward(self.take(self.val, indices, epoch=0))
            targets = self.targets(self.val, indices)
            if task.one_of:
                loss += F.cross_entropy(logits, targets, reduction="sum").item()
                correct += (logits.argmax(1) == targets).sum().item()
                continue
            scores, y = logits.cpu().numpy(), self.val.labels[indices]
            loss += float(task.losses(scores, y).sum())
            correct += float(task.merits(scores, y).sum())
        return loss / len(self.val), correct / len(self.val)

    def finished(self, time_limit: float | None) -> bool:
        if self.recipe.patience and self.val is not None and waited(self.rows) >= self.recipe.patience:
            return True
        return bool(self.diverged) or self.out_of_time(time_limit)

    def out_of_time(self, time_limit: float | None) -> bool:
        return time_limit is not None and time.perf_counter() - self.began + self.judging > time_limit

    def save(self) -> None:
        if self.checkpoint is None:
            return
        write_checkpoint(
            self.checkpoint,
            {
                "made_for": self.made_for,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict() if self.optimizer else {},
                "average": self.average.state if self.average else {},
                "rows": [asdict(row) for row in self.rows],
                "best": [(asdict(row), values) for row, values in self.best],
            },
        )

    def finish(self) -> History:
        state, made_of = self.blended()
        put(self.network, state)
        self.say("finish")
        blend = self.row() if made_of else None
        return History(tuple(self.rows), self.best[0][0].epoch, blend, "; ".join(made_of), self.diverged)

    def blended(self) -> tuple[State, list[str]]:
        """The weights to deliver, and how they were made where they are not simply the kept epoch's."""
        (kept, state), made_of = self.best[0], []
        if self.recipe.average == "soup" and len(self.best) > 1:
            state, chosen = greedy_soup([values for _, values in self.best], self.judge)
            if len(chosen) > 1:
                made_of.append(f"average of epochs {', '.join(str(self.best[i][0].epoch) for i in chosen)}")
        share = self.recipe.interpolate
        share = best_share(state, self.first, self.judge) if share == "auto" else share
        if share and kept.epoch:
            state = between(state, self.first, share)
            made_of.append(f"{100 * share:g} % of the way back to the start")
        return state, made_of

    def judge(self, state: State) -> tuple[float, float]:
        put(self.network, state)
        return merit(self.row())

    # what must hold ---------------------------------------------------------------------------------

    def digest_frozen(self) -> str:
        """Of all tensors that the plan does not train, below the network too (live prefixes)."""
        trained = self.plan.trained
        state: dict[str, Any] = {k: v for k, v in self.network.state_dict().items() if k not in trained}
        if self.train.prefix is not None:
            state |= {f"prefix.{k}": v for k, v in self.train.prefix.state_dict().items()}
        return digest_state(state)

    def assert_frozen(self) -> None:
        if self.digest_frozen() != self.frozen:
            raise RecipeError(
                f"a frozen tensor changed in epoch {self.epoch}: something else than the optimizer wrote it. "
                "If it is batch-norm statistics, train them: recipe.with_(batch_norm='train')."
            )

    def assert_reached(self) -> None:
        names = {id(p): name for name, p in self.network.named_parameters()}
        lost = [names[id(p)] for group in self.groups for p in group["params"] if p.grad is None]
        if lost:
            raise RecipeError(
                f"these parameters are to be trained but no gradient reaches them: {', '.join(lost[:5])}. "
                "Freeze them, or train above a cut that leads to the head: recipe.with_(cut='auto')."
            )

    def say(self, kind: Any, epoch: int | None = None) -> None:
        plan, done = self.plan, self.epoch if epoch is None else epoch
        self.tell(Event(kind, done, plan.n_epochs, self.updates, plan.updates, self.rows[-1]))
