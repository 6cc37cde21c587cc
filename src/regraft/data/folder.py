"""Folders: root/SPLIT/CLASS/* or root/CLASS/*."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from regraft.data.dataset import Problem
from regraft.data.listing import SPLIT_NAMES, Listing, Row
from regraft.data.locate import FileLocator
from regraft.data.picture import SUFFIXES
from regraft.errors import DataError


def list_folder(root: Path) -> Listing:
    """Every picture below the class folders of `root`."""
    listing = Listing(root.name)
    for split, folder in _class_parents(root, listing):
        for class_folder in _subfolders(folder):
            _list_class(root, class_folder, split, listing)
    return listing


def _class_parents(root: Path, listing: Listing) -> list[tuple[str | None, Path]]:
    """The folders whose subfolders are classes, with the split that each stands for."""
    subfolders = _subfolders(root)
    splits = [f for f in subfolders if f.name.lower() in SPLIT_NAMES and _subfolders(f)]
    if splits:
        for other in set(subfolders) - set(splits):
            listing.notes.append(Problem("ignored", other.name, "a folder beside the split folders"))
        return [(SPLIT_NAMES[f.name.lower()], f) for f in splits]
    if subfolders and all(f.name.lower() in SPLIT_NAMES for f in subfolders):
        raise DataError(
            f"{root}/{subfolders[0].name} has no class folders. "
            f"Expected one folder per class: {root}/{subfolders[0].name}/CLASS/picture.jpg"
        )
    return [(None, root)]


def _list_class(root: Path, folder: Path, split: str | None, listing: Listing) -> None:
    before, others = len(listing.rows), []
    for path in _files(folder):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in SUFFIXES:
            listing.rows.append(Row(name, FileLocator(str(path)), folder.name, split))
        else:
            others.append(path.name)
    name = folder.relative_to(root).as_posix()
    if others:
        detail = f"{len(others)} files that are not pictures by their ending ({', '.join(others[:3])})"
        listing.notes.append(Problem("ignored", name, detail))
    if len(listing.rows) == before:
        listing.notes.append(Problem("empty class", name, "the folder has no pictures"))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(where, name) for name in sorted(names) if not name.startswith("."))
