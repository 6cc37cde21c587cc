"""Archives of a folder: what is inside is opened, and nothing gets out."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from damage import mutations
from regraft.errors import SourceError
from regraft.source import load_source, write_source
from regraft.source.archive import unpacked
from regraft.testing import tiny_source


def packed(path: Path, inside: str = "net/") -> Path:
    """A source folder as an archive."""
    folder = path.parent / "plain"
    write_source(folder, tiny_source())
    files = {inside + file.name: file.read_bytes() for file in folder.iterdir()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # always the same time
    else:
        with gzip.GzipFile(path, "wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            for name, content in files.items():
                archive.addfile(member(name, len(content)), io.BytesIO(content))
    return path


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("name", ["net.zip", "net.tar.gz", "net.tgz"])
@pytest.mark.parametrize("inside", ["", "net/", "./net/"])
def test_a_folder_in_an_archive_is_opened(name: str, inside: str, tmp_path: Path, hub: Path) -> None:
    path = packed(tmp_path / name, inside)
    assert load_source(str(path)).weights_digest == tiny_source().weights_digest
    again = unpacked(path)
    assert again == unpacked(path) and again.is_relative_to(hub)
    assert [p.name for p in (hub / "regraft" / "unpacked").iterdir()] == [again.relative_to(hub).parts[2]]


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..\\out", "C:/out"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_name_that_leads_out_is_refused(name: str, kind: str, tmp_path: Path, hub: Path) -> None:
    path = tmp_path / f"net.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("x" * len(name))
            archive.writestr(info, b"out")
        path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(member(name, 3), io.BytesIO(b"out"))
    with pytest.raises(SourceError, match=r"leads out of its folder.*unpack it yourself"):
        unpacked(path)
    assert not list(tmp_path.rglob("out"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "net.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member("config.json", kind=kind))
    with pytest.raises(SourceError, match="link or a device"):
        unpacked(path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "net.zip"
    info = zipfile.ZipInfo("config.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="link or a device"):
        unpacked(path)


def zip_bomb(path: Path, size: int = 100 * 2**20) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("weights.bin", "w") as file:
        for _ in range(size >> 20):
            file.write(b"\0" * 2**20)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, hub: Path) -> None:
    zip_bomb(tmp_path / "net.zip")
    with pytest.raises(SourceError, match="would unpack to more than"):
        unpacked(tmp_path / "net.zip")
    with tarfile.open(tmp_path / "net.tgz", "w:gz") as archive:
        archive.addfile(member("weights.bin", 200 * 2**20), io.BytesIO(bytes(200 * 2**20)))
    with pytest.raises(SourceError, match="would unpack to more than"):
        unpacked(tmp_path / "net.tgz")
    assert sum(p.stat().st_size for p in hub.rglob("*") if p.is_file()) == 0


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path, hub: Path) -> None:
    path = tmp_path / "net.zip"
    zip_bomb(path)
    true, false = (100 * 2**20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true, false))
    with pytest.raises(SourceError):
        unpacked(path)
    assert sum(p.stat().st_size for p in hub.rglob("*") if p.is_file()) == 0


def test_a_tar_header_that_fills_the_memory_is_refused(tmp_path: Path, hub: Path) -> None:
    header = member("PaxHeader", 2**33, tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = squeeze.compress(header + bytes(2**20)) + squeeze.flush()
    (tmp_path / "net.tgz").write_bytes(data)
    with pytest.raises(SourceError, match="would unpack to more"):
        unpacked(tmp_path / "net.tgz")


@pytest.mark.parametrize("name", ["net.zip", "net.tar.gz"])
def test_damaged_archives_give_one_clear_message(name: str, tmp_path: Path, hub: Path) -> None:
    path = packed(tmp_path / name)
    refused = 0
    for data in mutations(path.read_bytes(), 120):
        path.write_bytes(data)
        try:
            load_source(str(path))  # a flipped bit in a time stamp changes nothing that matters
        except SourceError:
            refused += 1
    assert refused > 60
