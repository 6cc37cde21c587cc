"""The scripts of PyTorch's "Transfer Learning for Computer Vision Tutorial", and the same from random weights.

Kept as they are there, also that batch norm goes on measuring in the frozen network of the fixed feature extractor.
"""

from __future__ import annotations

import copy

import torch
from task import Task, predictions
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision import transforms

EPOCHS, BATCH, WORKERS = 25, 4, 2
RATES = {"default": 0.001, "faster": 0.01, "plain": 0.01}


def run_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer | None) -> float:
    """One pass, with training where there is an optimizer; the share that was right."""
    model.train(optimizer is not None)
    right, loss_of = 0, nn.CrossEntropyLoss()
    for pixels, labels in loader:
        with torch.set_grad_enabled(optimizer is not None):
            logits = model(pixels)
            right += int((logits.argmax(1) == labels).sum())
            if optimizer:
                optimizer.zero_grad()
                loss_of(logits, labels).backward()
                optimizer.step()
    return right / len(loader.dataset)


def main() -> None:
    task = Task.given()
    network, head = task.network(random=task.contestant == "tutorial, scratch")
    if task.contestant == "tutorial, fixed":
        network.requires_grad_(False)
        head.requires_grad_(True)
    augment = None if task.setting == "plain" else task.random(transforms.RandomHorizontalFlip())
    train = DataLoader(task.pictures("train", augment=augment), BATCH, shuffle=True, num_workers=WORKERS)
    val = DataLoader(task.pictures("val"), 8, num_workers=WORKERS)  # in eval mode any size gives the same answers
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATES[task.setting], momentum=0.9)
    schedule = StepLR(optimizer, step_size=7, gamma=0.1)
    best, kept = -1.0, copy.deepcopy(network.state_dict())
    for _ in range(EPOCHS):
        run_epoch(network, train, optimizer)
        schedule.step()
        accuracy = run_epoch(network, val, None)
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    task.answer(predictions(network, task.pictures("test")))


if __name__ == "__main__":
    main()
