"""Hugging Face's Trainer: TrainingArguments at their defaults, pictures as in the image classification guide."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import torch
from task import Task, predictions
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments


@dataclass(frozen=True)
class Setting:
    head_epochs: int = 0
    epochs: int = 3
    lr: float = 5e-5
    augment: bool = True


SETTINGS = {
    "default": Setting(),
    "longer": Setting(epochs=20, lr=5e-4),
    "head first": Setting(head_epochs=5, epochs=20, lr=5e-4, augment=False),
}
HEAD_LR = 5e-3


class WithLoss(nn.Module):
    """A network that also gives its loss, as Trainer expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def together(rows):
    pixels, labels = zip(*rows, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


def train(model: nn.Module, pictures, seed: int, epochs: int, lr: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            learning_rate=lr,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        Trainer(model, arguments, train_dataset=pictures, data_collator=together).train()


def main() -> None:
    task = Task.given()
    how = SETTINGS[task.setting]
    network, head = task.network()
    pictures = task.pictures("train", augment=task.random() if how.augment else None)
    model = WithLoss(network)
    if how.head_epochs:
        network.requires_grad_(False)
        head.requires_grad_(True)
        train(model, pictures, task.seed, how.head_epochs, HEAD_LR)
        network.requires_grad_(True)
    train(model, pictures, task.seed, how.epochs, how.lr)
    task.answer(predictions(network.cpu(), task.pictures("test")))


if __name__ == "__main__":
    main()
