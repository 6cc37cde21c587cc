"""One peer on one cell: `python peers.py CONTESTANT CELL.csv MODEL_DIR SEED`; prints which test texts it got right.

Every peer is as its documentation shows it. CELL.csv has the columns text, label and split.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Texts = dict[str, tuple[list[str], list[int]]]  # of each split: texts and labels


def texts_of(path: Path) -> Texts:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    splits = {row["split"] for row in rows}
    return {
        split: (
            [row["text"] for row in rows if row["split"] == split],
            [classes.index(row["label"]) for row in rows if row["split"] == split],
        )
        for split in splits
    }


def embeddings_and_logistic(texts: Texts, model: str, seed: int) -> list[int]:
    """scikit-learn's LogisticRegression on sentence-transformers' embeddings."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(model, device="cpu")
    X = encoder.encode(texts["train"][0], show_progress_bar=False)
    head = LogisticRegression(max_iter=1000, random_state=seed).fit(X, texts["train"][1])
    return head.predict(encoder.encode(texts["test"][0], show_progress_bar=False)).tolist()


def setfit(texts: Texts, model: str, seed: int) -> list[int]:
    """SetFit: contrastive pairs, then logistic regression (Tunstall and others, 2022, arXiv:2209.11055)."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    examples, labels = texts["train"]
    network = SetFitModel.from_pretrained(model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        how = TrainingArguments(folder, seed=seed, report_to="none", save_strategy="no", logging_strategy="no")
        Trainer(network, how, train_dataset=Dataset.from_dict({"text": examples, "label": labels})).train()
    return [int(label) for label in network.predict(texts["test"][0])]


def trainer(texts: Texts, model: str, seed: int) -> list[int]:
    """Hugging Face's Trainer on the whole network, TrainingArguments at their defaults."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(set(texts["train"][1])))

    def tokens(split: str) -> Dataset:
        rows, labels = texts[split]
        return Dataset.from_dict({**tokenizer(rows, truncation=True), "label": labels})

    with tempfile.TemporaryDirectory() as folder:
        how = TrainingArguments(folder, seed=seed, report_to="none", save_strategy="no", logging_strategy="no")
        loop = Trainer(network, how, train_dataset=tokens("train"), processing_class=tokenizer)
        loop.train()
        return loop.predict(tokens("test")).predictions.argmax(1).tolist()


def tfidf(texts: Texts, model: str, seed: int) -> list[int]:
    """scikit-learn's TfidfVectorizer and LogisticRegression; no network."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000, random_state=seed))
    return pipeline.fit(*texts["train"]).predict(texts["test"][0]).tolist()


PEERS: dict[str, Callable[[Texts, str, int], list[int]]] = {
    "embeddings + logistic": embeddings_and_logistic,
    "SetFit": setfit,
    "Trainer": trainer,
    "TF-IDF + logistic": tfidf,
}


def main() -> None:
    name, cell, model, seed = sys.argv[1:]
    texts = texts_of(Path(cell))
    sys.stdout = sys.stderr  # libraries print; the answer has standard output to itself
    predicted = PEERS[name](texts, model, int(seed))
    right = [p == t for p, t in zip(predicted, texts["test"][1], strict=True)]
    print(json.dumps({"right": "".join("1" if r else "0" for r in right)}), file=sys.__stdout__)


if __name__ == "__main__":
    main()
