"""Files from the web, against a server of this machine: resumed, checked, and never half there."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from regraft.errors import SourceError
from regraft.source import load_source
from regraft.source.download import address, fetch
from regraft.testing import TINY_ARCH, tiny_source

CONTENT = bytes(range(256)) * 8192  # 2 MiB, so that a cut falls between two blocks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Web:
    """A server that can misbehave.

    Args:
        files: path to content.
        ranges: whether it answers requests for a part.
        cuts: after how many bytes to cut each of the next connections.
        tag: the ETag of every file.
        asked: the Range headers it got.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    tag: str = '"one"'
    kind: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)
    base: str = ""


@pytest.fixture
def web(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    state = Web()
    monkeypatch.setattr("regraft.source.download.time.sleep", lambda seconds: None)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, state)

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.base = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def answer(handler: http.server.BaseHTTPRequestHandler, web: Web) -> None:
    wanted = handler.headers.get("Range")
    web.asked.append(wanted)
    if handler.path == "/away":
        handler.send_response(302)
        handler.send_header("Location", "http://example.org/net.pt")
        handler.end_headers()
        return
    if handler.path not in web.files:
        handler.send_error(404)
        return
    body = web.files[handler.path]
    same = handler.headers.get("If-Range") in (None, web.tag)
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.ranges and same else 0
    if wanted and start >= len(body):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Type", web.kind)
    handler.send_header("Content-Length", str(len(body) - start))
    if web.tag:
        handler.send_header("ETag", web.tag)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    handler.end_headers()
    handler.wfile.write(body[start : start + web.cuts.pop(0)] if web.cuts else body[start:])


def leftovers(hub: Path) -> list[str]:
    return sorted(p.name for p in hub.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_file_is_fetched_once_and_kept_under_its_address(web: Web, hub: Path) -> None:
    web.files = {"/a/net.pt": CONTENT, "/b/net.pt": b"another"}
    first, other = fetch(f"{web.base}/a/net.pt"), fetch(f"{web.base}/b/net.pt?download=1".split("?")[0])
    assert first.read_bytes() == CONTENT and other.read_bytes() == b"another" and first != other
    assert fetch(f"{web.base}/a/net.pt") == first and len(web.asked) == 2
    assert first.is_relative_to(hub / "regraft") and leftovers(hub) == ["net.pt", "net.pt"]


def test_a_name_with_a_digest_goes_where_pytorch_hub_looks(web: Web, hub: Path) -> None:
    name = f"net-{DIGEST[:8]}.pth"
    web.files[f"/{name}"] = CONTENT
    assert fetch(f"{web.base}/{name}") == hub / name


def test_a_cut_connection_is_resumed(web: Web) -> None:
    web.files["/net.pt"] = CONTENT
    web.cuts = [1_500_000, 100_000]
    assert fetch(f"{web.base}/net.pt").read_bytes() == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in web.asked if asked]
    assert len(web.asked) == 3 and starts == [1_500_000, 1_600_000]


def test_a_download_that_was_given_up_is_resumed_by_the_next(web: Web, hub: Path) -> None:
    web.files["/net.pt"] = CONTENT
    web.cuts = [100_000, 1, 1, 1, 1]
    with pytest.raises(SourceError, match=r"cut 5 times.*looked for at .*net\.pt"):
        fetch(f"{web.base}/net.pt")
    assert leftovers(hub) == ["net.pt.part", "net.pt.part-of"]
    assert fetch(f"{web.base}/net.pt").read_bytes() == CONTENT
    assert web.asked[-1] == "bytes=100004-" and leftovers(hub) == ["net.pt"]


@pytest.mark.parametrize("how", ["no ranges", "no tag", "changed"])
def test_a_part_that_may_be_of_another_file_is_thrown_away(how: str, web: Web) -> None:
    web.files["/net.pt"] = CONTENT
    web.ranges, web.tag = how != "no ranges", "" if how == "no tag" else '"one"'
    web.cuts = [100_000, 1, 1, 1, 1]
    with pytest.raises(SourceError):
        fetch(f"{web.base}/net.pt")
    if how == "changed":
        web.tag, web.files["/net.pt"] = '"two"', CONTENT[::-1]
    assert fetch(f"{web.base}/net.pt").read_bytes() == web.files["/net.pt"]


@pytest.mark.parametrize("where", ["name", "fragment"])
def test_another_content_than_promised_is_thrown_away(where: str, web: Web, hub: Path) -> None:
    path = f"/net-{DIGEST[:8]}.pt" if where == "name" else "/net.pt"
    web.files[path] = CONTENT[:-1]
    uri = web.base + path + ("" if where == "name" else f"#sha256={DIGEST}")
    with pytest.raises(SourceError, match=rf"has the SHA-256 \w+, expected {DIGEST[:8]}"):
        fetch(uri)
    assert leftovers(hub) == []
    web.files[path] = CONTENT
    kept = fetch(uri)
    kept.write_bytes(b"damaged since")
    with pytest.raises(SourceError, match=r"Remove it, and it is fetched again: rm '"):
        fetch(uri)


def test_whole_way_from_an_address_to_a_source(web: Web) -> None:
    file = io.BytesIO()
    torch.save({"state_dict": tiny_source(4).model.state_dict()}, file)
    web.files["/net.pt"] = file.getvalue()
    source = load_source(f"{web.base}/net.pt", arch=TINY_ARCH)
    assert source.weights_digest == tiny_source(4).weights_digest
    assert source.uri == f"{web.base}/net.pt"


def test_offline_says_where_the_file_was_looked_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/net.pt"] = CONTENT
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    where = address(f"{web.base}/net.pt").path
    with pytest.raises(SourceError, match=r"REGRAFT_OFFLINE forbids.*TORCH_HOME.*cp net\.pt ") as caught:
        fetch(f"{web.base}/net.pt")
    assert str(where) in str(caught.value) and not web.asked
    where.parent.mkdir(parents=True)
    where.write_bytes(CONTENT)
    assert fetch(f"{web.base}/net.pt") == where


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("{base}/nothing.pt", "could not be fetched .*404.*looked for at"),
        ("{base}/away", "example.org/net.pt is not fetched: expected https"),
        ("{base}/", "names no file"),
        ("{base}/net.pt#sha256=xyz", "8 to 64 hexadecimal digits"),
        ("{base}/net.pt#md5=0123456789abcdef", "expected #sha256="),
        ("http://127.0.0.1.example.org/net.pt", "expected https"),
        ("https://[::1/net.pt", "is no address"),
        ("https:///net.pt", "expected https://HOST"),
    ],
)
def test_what_cannot_be_fetched_says_why(uri: str, message: str, web: Web) -> None:
    with pytest.raises(SourceError, match=message):
        fetch(uri.format(base=web.base))


def test_a_web_page_is_no_weight_file(web: Web, hub: Path) -> None:
    web.files["/net.pt"], web.kind = b"<html>please log in</html>", "text/html; charset=utf-8"
    with pytest.raises(SourceError, match="answers with a web page"):
        fetch(f"{web.base}/net.pt")
    assert leftovers(hub) == []


def test_a_name_cannot_leave_its_folder(hub: Path) -> None:
    for url in ("https://example.org/..%2F..%2Fnet.pt", "https://example.org/%2e%2e", "https://example.org/a%00b.pt"):
        try:
            assert address(url).path.resolve().is_relative_to(hub.resolve())
        except SourceError as error:
            assert "names no file" in str(error)
