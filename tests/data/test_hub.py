"""Data sets of the hub: fetched once from a server that speaks as the hub does, then read without a network."""

from __future__ import annotations

import http.server
import io
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from regraft.data import read
from regraft.errors import DataError, MissingExtra

constants = pytest.importorskip("huggingface_hub.constants")

SHA = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["the sea", "a wave", "old city", "new roof", "some sand", "a street"]


def texts(prefix: str) -> bytes:
    rows = {"text": [f"{prefix} {text}" for text in TEXTS], "label": [0, 0, 1, 1, 0, 1]}
    return as_parquet(pa.table(rows), {"names": ["sea", "city"], "_type": "ClassLabel"})


def pictures(shade: int) -> bytes:
    def png(number: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (8, 8), shade + number).save(file, "PNG")
        return file.getvalue()

    rows = {"image": [{"bytes": png(i), "path": None} for i in range(6)], "label": [0, 1] * 3}
    return as_parquet(pa.table(rows), {"names": ["dark", "bright"], "_type": "ClassLabel"})


def as_parquet(table: pa.Table, label: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    told = json.dumps({"info": {"features": {"label": label}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": told}), file)
    return file.getvalue()


# What the server has: repository, branch, file.
SETS: dict[str, dict[str, dict[str, bytes]]] = {
    "me/pictures": {
        "main": {
            "README.md": b"# Pictures",
            "data/train-00000-of-00002.parquet": pictures(10),
            "data/train-00001-of-00002.parquet": pictures(30),
            "data/test-00000-of-00001.parquet": pictures(60),
        }
    },
    "me/several": {
        "main": {
            f"{name}/{split}-0.parquet": texts(name + split) for name in ("en", "fr") for split in ("train", "test")
        }
    },
    "me/script": {
        "main": {"script.py": b"print()"},
        "refs/convert/parquet": {f"default/{split}/0000.parquet": texts(split) for split in ("train", "validation")},
    },
    "old": {"main": {"data/train-0.parquet": texts("old")}},
    "me/empty": {"main": {"README.md": b"nothing"}},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as its client uses."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if tree := re.fullmatch(r"/api/datasets/([\w/]+)/(tree|revision)/([^?]+)(\?.*)?", unquote(self.path)):
            self._told(tree[1], tree[2], tree[3].rstrip("/"))
        elif file := re.fullmatch(r"/datasets/([\w/]+)/resolve/([^/]+)/(.+)", unquote(self.path)):
            branch = next((files for files in SETS[file[1]].values() if file[3] in files), {})
            self._answer(200, branch[file[3]])
        else:
            self._answer(404, b"{}")

    do_HEAD = do_GET  # noqa: N815

    def _told(self, repository: str, what: str, revision: str) -> None:
        branches = SETS.get(repository)
        if branches is None or (revision not in branches and revision != SHA):
            code = "RepoNotFound" if branches is None else "RevisionNotFound"
            self._answer(404, b"{}", {"X-Error-Code": code})
            return
        files = branches.get(revision) or {k: v for branch in branches.values() for k, v in branch.items()}
        if what == "tree":
            found: Any = [{"type": "file", "path": k, "size": len(v), "oid": str(len(v))} for k, v in files.items()]
        else:
            found = {"id": repository, "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
        self._answer(200, json.dumps(found).encode())

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        told = {"Content-Length": str(len(content)), "X-Repo-Commit": SHA, "ETag": f'"{hash(content) & 0xFFFFFFFF:x}"'}
        for name, value in (told | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a server in the hub's place is asked for."""
    Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield Hub.asked
    server.shutdown()
    server.server_close()


def test_pictures_with_their_splits_and_class_names(asked: list[str]):
    found = read("hub:me/pictures")
    assert (found.name, found.modality, found.classes) == ("pictures", "image", ("dark", "bright"))
    assert found.counts()["test"] == {"dark": 3, "bright": 3}
    assert len(found) == 18
    assert not any("README" in path and "resolve" in path for path in asked)  # nothing that is not needed


@pytest.mark.parametrize("forbidden_by", ["REGRAFT_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_second_time_nothing_is_downloaded_and_without_a_network_it_is_still_there(
    forbidden_by: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
):
    first = read("hub:me/pictures")
    before = len(asked)
    assert [e.key for e in read("hub:me/pictures").examples] == [e.key for e in first.examples]
    assert not any("resolve" in path for path in asked[before:])

    def connect(*args: Any) -> NoReturn:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", connect)
    if forbidden_by == "REGRAFT_OFFLINE":
        monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read once, when the package is imported
    assert [e.key for e in read("hub:me/pictures").examples] == [e.key for e in first.examples]
    part = next(Path(constants.HF_HUB_CACHE).rglob("snapshots/*/data/train-00001-of-00002.parquet"))
    part.unlink()  # as after a download that was killed
    with pytest.raises(DataError, match=r"incomplete.*read\('my_data'\)$"):
        read("hub:me/pictures")


def test_one_of_several_subsets_is_named_and_only_that_is_downloaded(asked: list[str]):
    with pytest.raises(DataError, match=r"2 subsets.*en, fr.*read\('hub:me/several/en'\)$"):
        read("hub:me/several")
    assert not any("resolve" in path for path in asked)
    found = read("hub:me/several/fr")
    assert (found.name, found.classes) == ("several-fr", ("sea", "city"))
    assert all(found.open(i).startswith("fr") for i in range(len(found)))
    assert not any("/en/" in path for path in asked)
    with pytest.raises(DataError, match=r"no subset 'de'.*en, fr"):
        read("hub:me/several/de")
    assert read("hub:old").name == "old"


def test_where_a_set_has_no_parquet_files_the_hubs_own_are_taken(asked: list[str], monkeypatch: pytest.MonkeyPatch):
    found = read("hub:me/script")
    assert found.counts()["val"] == {"sea": 3, "city": 3}
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    assert [e.key for e in read("hub:me/script").examples] == [e.key for e in found.examples]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("hub:me/empty", r"no Parquet files.*read\('my_data'\)$"),
        ("hub:me/absent", r"could not be fetched.*huggingface\.co/datasets/me/absent.*read\('my_data'\)$"),
        ("hub:me/pictures@v9", "could not be fetched"),
        ("hub:", r"OWNER/NAME.*read\('hub:uoft-cs/cifar10'\)$"),
        ("hub:me pictures", r"OWNER/NAME.*read\('hub:uoft-cs/cifar10'\)$"),
        ("hub:me/../../etc", "could not be fetched"),
    ],
)
def test_what_is_not_there_ends_in_one_message(asked: list[str], where: str, said: str):
    with pytest.raises(DataError, match=said):
        read(where)


def test_offline_the_error_names_the_way_out(asked: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    with pytest.raises(DataError, match=r"REGRAFT_OFFLINE=1.*Parquet files of.*read\('my_data'\)$"):
        read("hub:me/pictures")
    assert asked == []


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"regraft\[hf\]"):
        read("hub:me/pictures")
