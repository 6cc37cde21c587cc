"""Folders: root/SPLIT/CLASS/* or root/CLASS/*; where labels do not count, whatever lies below root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from regraft.data.dataset import Problem
from regraft.data.listing import SPLIT_NAMES, Listing, Row, folder_name, is_shown, or_table
from regraft.data.locate import FileLocator, printable
from regraft.data.medium import MEDIA, modality_of_files
from regraft.errors import DataError
from regraft.run import CONFIG, LOG
from regraft.spec import Modality

BESIDE = "a folder beside the split folders"
_WRITTEN = ((CONFIG, LOG), ("config.json", "model.safetensors"))  # what a run folder and a saved model hold


def list_folder(root: Path, modality: Modality | None = None) -> Listing:
    """Every example below the class folders of `root`.

    Args:
        root: the folder.
        modality: which files are examples; None goes by the endings of all.

    Raises:
        DataError: split folders without class folders, examples outside of class folders and none inside, or files of
            more than one modality.
    """
    listing = Listing(folder_name(root), notes=_passed_over(root))
    parents = _class_parents(root, listing)
    files = {folder: (split, [*_files(folder)]) for split, parent in parents for folder in _subfolders(parent)}
    loose = {parent: _loose(parent) for _, parent in parents}
    names = [path.name for _, paths in files.values() for path in paths]
    names = names or [path.name for paths in loose.values() for path in paths]
    listing.modality = modality or modality_of_files(names, str(root))
    for folder, (split, paths) in files.items():
        _list_class(root, folder, paths, split, listing)
    for parent, paths in loose.items():
        _list_loose(parent, paths, listing)
    return listing


def list_unlabelled(root: Path, modality: Modality) -> Listing:
    """Every example below `root`, in whatever folders; those below root/SPLIT belong to that split.

    Args:
        root: the folder.
        modality: which files are examples.
    """
    listing, medium = Listing(folder_name(root), modality, labelled=False), MEDIA[modality]
    listing.notes = _passed_over(root)
    for path in _files(root):
        if path.suffix.lower() in medium.suffixes:
            name = path.relative_to(root)
            split = SPLIT_NAMES.get(name.parts[0].lower()) if len(name.parts) > 1 else None
            listing.rows.append(Row(name.as_posix(), FileLocator(str(path)), (), split))
    return listing


def class_folders(root: Path) -> list[Path]:
    """The folders of `root`, and of its split folders, that hold examples of any kind."""
    splits = [folder for folder in _subfolders(root) if folder.name.lower() in SPLIT_NAMES]
    found = [folder for parent in (root, *splits) for folder in _subfolders(parent) if folder not in splits]
    return [folder for folder in found if _holds_examples(folder)]


def _holds_examples(folder: Path) -> bool:
    return any(path.suffix.lower() in medium.suffixes for path in _files(folder) for medium in MEDIA.values())


def _class_parents(root: Path, listing: Listing) -> list[tuple[str | None, Path]]:
    """The folders whose subfolders are classes, with the split that each stands for."""
    subfolders = _subfolders(root)
    splits = [f for f in subfolders if f.name.lower() in SPLIT_NAMES and _subfolders(f)]
    if splits:
        for other in (f for f in subfolders if f not in splits):
            is_split = other.name.lower() in SPLIT_NAMES
            detail = "it has no class folders" if is_split else BESIDE
            listing.notes.append(Problem("ignored", other.name, detail))
        return [(SPLIT_NAMES[f.name.lower()], f) for f in splits]
    if subfolders and all(f.name.lower() in SPLIT_NAMES for f in subfolders):
        raise DataError(
            f"{root}/{subfolders[0].name} has no class folders. "
            f"Expected one folder per class: {root}/{subfolders[0].name}/CLASS/picture.jpg"
        )
    return [(None, root)]


def _list_class(root: Path, folder: Path, paths: list[Path], split: str | None, listing: Listing) -> None:
    medium, others = MEDIA[listing.modality], []
    for path in paths:
        if path.suffix.lower() in medium.suffixes:
            name = path.relative_to(root).as_posix()
            listing.rows.append(Row(name, FileLocator(str(path)), printable(folder.name), split))
        else:
            others.append(printable(path.name))
    name = folder.relative_to(root).as_posix()
    if others:
        detail = f"{len(others)} files that are not {medium.noun}s by their ending ({', '.join(others[:3])})"
        listing.notes.append(Problem("ignored", name, detail))
    if len(others) == len(paths):
        listing.notes.append(Problem("empty class", name, f"the folder has no {medium.noun}s"))


def _list_loose(parent: Path, paths: list[Path], listing: Listing) -> None:
    """What lies beside the class folders, or instead of them."""
    medium = MEDIA[listing.modality]
    loose = [path for path in paths if path.suffix.lower() in medium.suffixes]
    if loose and not listing.rows:
        lacking = "none in a class folder" if _subfolders(parent) else "no folder per class"
        raise DataError(
            f"{parent} holds {len(loose)} {medium.noun}s, but {lacking}. "
            f"Expected one folder per class: {parent}/CLASS/{medium.sample}{or_table(parent)}"
        )
    if loose:
        names = ", ".join(printable(path.name) for path in loose[:3])
        detail = f"{len(loose)} {medium.noun}s beside the class folders ({names})"
        listing.notes.append(Problem("ignored", parent.name, detail))


def _passed_over(root: Path) -> list[Problem]:
    """What regraft itself wrote below the data, as one of its reports holds pictures too."""
    found = [folder for _, _, written in _walk(root) for folder in written]
    detail = "a run or a model that regraft wrote is no data"
    return [Problem("ignored", folder.relative_to(root).as_posix(), detail) for folder in found]


def _is_written(folder: Path) -> bool:
    """Whether regraft wrote it: a run or a model, or, as runs/, a folder of nothing else."""
    _, folders, names = next(os.walk(folder), ("", [], []))
    if any(set(held) <= set(names) for held in _WRITTEN):
        return True
    inside = [folder / name for name in folders if is_shown(name)]
    return bool(inside) and not any(map(is_shown, names)) and all(map(_is_written, inside))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and is_shown(f.name) and not _is_written(f))


def _loose(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_file() and is_shown(f.name))


def _files(folder: Path) -> Iterator[Path]:
    for where, names, _ in _walk(folder):
        yield from (where / name for name in names)


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Each folder with its files, and those of its folders that regraft wrote, which are not entered."""
    for where, folders, names in os.walk(root):
        shown = sorted(Path(where, name) for name in folders if is_shown(name))
        written = [folder for folder in shown if _is_written(folder)]
        folders[:] = [folder.name for folder in shown if folder not in written]
        yield Path(where), [name for name in sorted(names) if is_shown(name)], written
