"""Weight files from the web: fetched once, in parts if need be, and checked.

Where they go: a file whose name carries its digest (`resnet18-f37072fd.pth`) goes into PyTorch Hub's own folder,
`$TORCH_HOME/hub/checkpoints`, which torchvision and others share; any other into `regraft/DIGEST_OF_THE_URL` below
it, since two addresses may end in the same name. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from regraft.digest import digest_bytes, digest_file
from regraft.errors import SourceError
from regraft.offline import is_offline

_BLOCK = 1 << 20
_ATTEMPTS = 5
_TIMEOUT_S = 30.0
# PyTorch Hub's convention: the first digits of the content's SHA-256 stand at the end of the name.
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^/]+$")


@dataclass(frozen=True)
class Address:
    """Where a file comes from, and where it belongs.

    Args:
        url: without a fragment.
        sha256: leading hexadecimal digits of the content's SHA-256; "" where unknown.
        path: the file, once it is here.
    """

    url: str
    sha256: str
    path: Path


def address(url: str) -> Address:
    """What an address says about its file.

    Args:
        url: `https://…`; `http://` to this machine only. `#sha256=…` at its end gives the digest.

    Raises:
        SourceError: the address cannot be used.

    Example:
        >>> found = address("https://example.org/nets/resnet18-f37072fd.pth?download=1")
        >>> found.path.name, found.sha256
        ('resnet18-f37072fd.pth', 'f37072fd')
    """
    parts = _checked(url)
    name = re.sub(r"[^\w.-]", "_", urllib.parse.unquote(parts.path).rpartition("/")[2]).lstrip(".")
    if not name:
        raise SourceError(f"{url} names no file. Expected an address such as load_source('https://HOST/weights.pt')")
    plain = urllib.parse.urlunsplit(parts._replace(fragment=""))
    in_name = _DIGEST_IN_NAME.search(name)
    asked = _asked_digest(url, parts.fragment)
    shared = Path(torch.hub.get_dir()) / "checkpoints"
    folder = shared if in_name else shared / "regraft" / digest_bytes(plain.encode())[:16]
    return Address(plain, asked or (in_name.group(1) if in_name else ""), folder / name)


def _checked(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port  # either raises where it makes no sense
    except ValueError as error:
        raise SourceError(f"{url!r} is no address ({error}). Expected https://HOST/weights.pt") from error
    if parts.scheme == "https" and host:
        return parts
    if parts.scheme == "http" and host and _is_here(host):
        return parts
    raise SourceError(
        f"{url} is not fetched: expected https://HOST/FILE, so that nobody on the way can change the weights "
        f"(http:// only from this machine). Download it yourself and pass the file: load_source('weights.pt', …)"
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _asked_digest(url: str, fragment: str) -> str:
    if not fragment:
        return ""
    key, _, digest = fragment.partition("=")
    if key != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{8,64}", digest):
        raise SourceError(
            f"{url} ends in #{fragment}, expected #sha256= and 8 to 64 hexadecimal digits. "
            "`sha256sum weights.pt` prints them; without them, leave the # out"
        )
    return digest.lower()


def fetch(url: str) -> Path:
    """The file at an address, downloaded unless it is here already.

    An interrupted download is resumed where the server allows it and the file has not changed meanwhile.

    Raises:
        SourceError: offline, no such file, the connection fails again and again, or another digest than asked for.
    """
    wanted = address(url)
    if wanted.path.is_file():
        return _as_promised(wanted)
    if is_offline():
        raise SourceError(
            f"{wanted.url} is not on this machine and REGRAFT_OFFLINE forbids the network. {_by_hand(wanted)}"
        )
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{wanted.path}.lock"):  # of two processes, the second finds the file of the first
        if not wanted.path.is_file():
            _download(wanted)
    return wanted.path


def _as_promised(wanted: Address) -> Path:
    """A file that is here already, which somebody may have put here or damaged since."""
    found = digest_file(wanted.path) if wanted.sha256 else ""
    if found.startswith(wanted.sha256):
        return wanted.path
    raise SourceError(
        f"{wanted.path} has the SHA-256 {found}, expected {wanted.sha256}…, so it is not the file of {wanted.url}. "
        f"Remove it, and it is fetched again: rm '{wanted.path}'"
    )


def _by_hand(wanted: Address) -> str:
    return (
        f"It was looked for at {wanted.path} ($TORCH_HOME moves that folder). Copy the file there from a machine "
        f"that has it: cp {wanted.path.name} {wanted.path.parent}/"
    )


def _download(wanted: Address) -> None:
    part = wanted.path.with_name(f"{wanted.path.name}.part")
    for attempt in range(_ATTEMPTS):
        try:
            if _receive(wanted, part):
                break
        except (OSError, http.client.HTTPException) as error:
            if _is_final(error) or attempt + 1 == _ATTEMPTS:
                raise _failed(wanted, str(error) or type(error).__name__) from error
        time.sleep(min(0.25 * 2**attempt, 4.0))
    else:
        raise _failed(wanted, f"the connection was cut {_ATTEMPTS} times")
    _check_digest(wanted, part)
    _validator(part).unlink(missing_ok=True)
    part.replace(wanted.path)


def _is_final(error: Exception) -> bool:
    """A refusal that the same question will get again."""
    return isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429)


def _failed(wanted: Address, reason: str) -> SourceError:
    return SourceError(f"{wanted.url} could not be fetched ({reason}). {_by_hand(wanted)}")


class _SameRules(urllib.request.HTTPRedirectHandler):
    """A redirection may not lead where the address itself could not have led."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _checked(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(wanted: Address, part: Path) -> bool:
    """Ask for what is missing and append it; whether the file is whole then."""
    have, validator = _resumable(wanted, part)
    headers = {"User-Agent": "regraft", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        headers |= {"If-Range": validator} if validator else {}
    try:
        answer = urllib.request.build_opener(_SameRules).open(
            urllib.request.Request(wanted.url, headers=headers), timeout=_TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send: the part is whole, or of another file
            raise
        error.close()
        part.unlink(missing_ok=True)
        return False
    with answer:
        _check_answer(wanted, answer)
        have = have if answer.status == 206 and _starts_at(answer, have) else 0
        return _append(wanted, part, answer, have)


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}-of")


def _resumable(wanted: Address, part: Path) -> tuple[int, str]:
    """How much is here, and which version of the file it belongs to; nothing where neither can be told."""
    have = part.stat().st_size if part.is_file() else 0
    note = _validator(part)
    validator = note.read_text(encoding="utf-8") if note.is_file() else ""
    return (have, validator) if validator or wanted.sha256 else (0, "")


def _starts_at(answer: Any, have: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _check_answer(wanted: Address, answer: Any) -> None:
    kind = answer.headers.get_content_type()
    if kind == "text/html" and not wanted.path.name.endswith((".html", ".htm")):
        raise SourceError(
            f"{wanted.url} answers with a web page, expected a weight file. Open it in a browser, follow its "
            "download link, and pass that address: load_source('https://HOST/weights.pt', …)"
        )


def _append(wanted: Address, part: Path, answer: Any, have: int) -> bool:
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length and length.isdecimal() else None
    _check_space(wanted, part, (total or 0) - have)
    tag = answer.headers.get("ETag") or ""
    # A weak tag promises equal meaning, not equal bytes.
    _validator(part).write_text(answer.headers.get("Last-Modified") or "" if tag.startswith("W/") or not tag else tag)
    with part.open("ab" if have else "wb") as file, _bar() as bar:
        task = bar.add_task(wanted.path.name, total=total, completed=have)
        while block := _block(answer):
            file.write(block)
            have += len(block)
            bar.update(task, completed=have)
    return total is None or have == total


def _block(answer: BinaryIO) -> bytes:
    try:
        return answer.read(_BLOCK)
    except http.client.IncompleteRead as cut:
        if cut.partial:
            return cut.partial
        raise


def _check_space(wanted: Address, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise SourceError(
            f"{wanted.url} has {needed:,} bytes left to fetch, and {part.parent} has {free:,} free. Make room, or "
            "choose another disk: TORCH_HOME=/path/with/room"
        )


def _bar() -> Progress:
    """On a person's terminal only; nothing stays behind."""
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _check_digest(wanted: Address, part: Path) -> None:
    found = digest_file(part)
    if found.startswith(wanted.sha256):
        return
    part.unlink()
    _validator(part).unlink(missing_ok=True)
    raise SourceError(
        f"{wanted.url} has the SHA-256 {found}, expected {wanted.sha256}…: it is not the file that was meant, or it "
        "was damaged on the way. It was thrown away; ask its maker for the right digest, or try again: "
        f"load_source({wanted.url!r})"
    )
