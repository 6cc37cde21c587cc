"""What a user would write by hand: last-layer features and scikit-learn's LogisticRegressionCV.

    python benchmarks/by_hand.py TIMM_FOLDER IMAGES.json

IMAGES.json: {"train": [[path, label], ...], "test": [[path, label], ...]}. Prints {"accuracy": …, "n": …}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader


class Images(torch.utils.data.Dataset):
    def __init__(self, items, transform):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        path, label = self.items[i]
        return self.transform(Image.open(path).convert("RGB")), label


def features(model, items, transform):
    loader = DataLoader(Images(items, transform), batch_size=64, num_workers=2)
    rows, labels = [], []
    with torch.inference_mode():
        for pixels, label in loader:
            rows.append(model(pixels).numpy())
            labels.append(label.numpy())
    return np.concatenate(rows), np.concatenate(labels)


def main() -> None:
    folder, images = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    X, y = features(model, images["train"], transform)
    X_test, y_test = features(model, images["test"], transform)
    classifier = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=10, cv=5, max_iter=1000))
    classifier.fit(X, y)
    print(json.dumps({"accuracy": float(classifier.score(X_test, y_test)), "n": len(y_test)}))


if __name__ == "__main__":
    main()
