"""A served model gives the model's answers, refuses what it cannot use, and shows nothing else of the machine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from conftest import CLASSES, Delivered  # type: ignore[import-not-found]
from regraft.artifact import Classifier, Upload, application, load
from regraft.data import Task


@contextmanager
def served(model: Classifier, **limits: float) -> Iterator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(application(model, **limits), port=0, log_level="warning"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(saved: Path) -> Iterator[httpx.Client]:
    with served(load(saved)) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(delivered: Delivered) -> list[bytes]:
    return [png(pixels) for pixels in delivered.pixels[:5]]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{i}.png", content)) for i, content in enumerate(contents)]


def test_it_says_what_it_is(client: httpx.Client, saved: Path):
    about = client.get("/").json()
    assert (about["classes"], about["task"], about["modality"]) == (list(CLASSES), "classification", "image")
    assert about["digest"] == load(saved).bundle.digest


def test_answers_are_the_models_in_order(client: httpx.Client, saved: Path, pictures: list[bytes]):
    model = load(saved)
    expected = [model.plain(one) for one in model.predict([Upload(f"{i}.png", p) for i, p in enumerate(pictures)])]
    assert client.post("/predict", files=files(*pictures)).json() == expected
    (single,) = client.post("/predict", content=pictures[3]).json()
    assert single["label"] == expected[3]["label"]
    assert single["probability"] == pytest.approx(expected[3]["probability"], abs=1e-6)


def test_a_bad_file_costs_its_own_answer_alone(client: httpx.Client, pictures: list[bytes]):
    answers = client.post("/predict", files=files(pictures[0], b"text", pictures[1], pictures[2][:60])).json()
    assert ["error" in one for one in answers] == [False, True, False, True]
    assert [one["name"] for one in answers] == ["0.png", "1.png", "2.png", "3.png"]
    assert "known format" in answers[1]["error"]


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"content": b""}, 400, "no example"),
        ({"json": {"inputs": ["/etc/passwd"]}}, 415, "takes pictures as files"),
        ({"data": {"file": "/etc/passwd"}, "files": {}}, 200, "known format"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "curl -F"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 400, "curl -F"),
        ({"content": iter([b"x"])}, 411, "Content-Length"),
    ],
    ids=["empty", "json", "form", "no boundary", "no parts", "endless"],
)
def test_other_requests_are_refused_in_a_sentence(client: httpx.Client, request_: dict, status: int, said: str):
    answer = client.post("/predict", **request_)
    assert answer.status_code == status
    assert said in answer.text and "Traceback" not in answer.text and "root:" not in answer.text


def test_a_large_request_is_refused(saved: Path, pictures: list[bytes]):
    with served(load(saved), largest_mb=0.001) as client:
        answer = client.post("/predict", content=b"\0" * 2000)
        assert (answer.status_code, answer.json()["error"][:26]) == (413, "the request has 0.0 MB, at")
        assert client.get("/").status_code == 200


def test_numbers_and_labels(delivered: Delivered, tmp_path: Path, pictures: list[bytes]):
    numbers = load(delivered.save(tmp_path / "numbers", task=Task("regression", (10.0, 20.0, 30.0), (1.0, 2.0, 3.0))))
    with served(numbers) as client:
        (answer,) = client.post("/predict", content=pictures[0]).json()
    assert list(answer["values"].values()) == pytest.approx(numbers.predict_values([Upload("a", pictures[0])])[0])
    several = load(delivered.save(tmp_path / "labels", task=Task("multilabel")))
    with served(several) as client:
        (answer,) = client.post("/predict", content=pictures[0]).json()
    assert set(answer) == {"name", "labels", "probabilities"}


def test_texts_come_as_json_or_as_files_and_name_no_file(of_tiny_texts: Classifier):
    texts = ["city street tram", "/etc/passwd", "roof"]
    with served(of_tiny_texts) as client:
        answers = client.post("/predict", json={"inputs": texts}).json()
        (of_file,) = client.post("/predict", files={"file": ("a.txt", b"city street tram")}).json()
        wrong = [client.post("/predict", json=body) for body in ({"texts": texts}, {"inputs": "a"}, {"inputs": [3]})]
        kind = {"content-type": "application/json"}
        broken = [client.post("/predict", content=body, headers=kind) for body in (b"{", b"[" * 100_000, b"\xff")]
    expected = of_tiny_texts.predict_proba(texts)
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in answers], expected, atol=1e-6)
    assert of_file["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-6)
    for answer in (*wrong, *broken):
        assert answer.status_code == 400 and '{\\"inputs\\":' in answer.text
