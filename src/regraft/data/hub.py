"""Data sets of the Hugging Face hub, as Parquet files: their own, or those that the hub makes of every public set.

    hub:OWNER/NAME            the only subset, or the default one; the oldest sets have no owner: hub:NAME
    hub:OWNER/NAME/SUBSET     one of several
    …@REVISION                a branch, a tag or a commit

Files are kept in the hub's cache ($HF_HOME/hub, else ~/.cache/huggingface/hub) and downloaded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

from regraft.data.listing import SPLIT_NAMES
from regraft.errors import DataError, MissingExtra, closest, first_line
from regraft.offline import is_offline

HUB = "hub:"
_CONVERTED = "refs/convert/parquet"  # the branch that the hub makes itself
_USUAL = ("", "data", "default")  # folders of a set's only subset
_PLACE = re.compile(r"hub:(?P<repository>[\w.-]+(/[\w.-]+)?)(/(?P<subset>[\w./-]+?))?/?(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class _Place:
    repository: str
    subset: str | None
    revision: str | None


def hub_name(where: str) -> str:
    """What a set is called: NAME, or NAME-SUBSET."""
    place = _place(where)
    return "-".join([place.repository.rpartition("/")[2], *(place.subset or "").split("/")]).rstrip("-")


def hub_folder(where: str) -> Path:
    """The folder of this machine that holds the Parquet files of a set; they are downloaded if they are not here.

    Args:
        where: `hub:OWNER/NAME`, perhaps with `/SUBSET` and `@REVISION`.

    Raises:
        DataError: there is no such set or subset, it has several, it cannot be fetched, or the network is forbidden.
        MissingExtra: huggingface_hub is not installed.
    """
    place, hub = _place(where), _hub()
    try:
        for revision in [place.revision] if place.revision else [None, _CONVERTED]:
            if files := _parquet_files(hub, place, revision):
                subset = _chosen(files, place, where)
                inside = [f"{subset}/*.parquet"] if subset else [file for file in files if not _subset_of(file)]
                return _fetched(hub, place, revision, inside) / subset
    except (DataError, MissingExtra):
        raise
    except Exception as error:  # the hub's, HTTP's and the file system's errors of several libraries
        raise _unreachable(where, place, first_line(error)) from error
    nowhere = "nothing of it is on this machine" if _alone(hub) else "it has no Parquet files, nor has the hub made any"
    raise _unreachable(where, place, nowhere)


def _place(where: str) -> _Place:
    found = _PLACE.fullmatch(where)
    if found is None:
        raise DataError(
            f"{where!r} is no data set of the hub. Expected hub:OWNER/NAME, hub:OWNER/NAME/SUBSET or one of these "
            "with @REVISION: read('hub:uoft-cs/cifar10')"
        )
    return _Place(found["repository"], found["subset"], found["revision"])


def _hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hf", "download data sets from the Hugging Face hub") from error
    return huggingface_hub


def _alone(hub: ModuleType) -> bool:
    """Whether the network is forbidden, by us or by the hub's own variable."""
    return is_offline() or hub.constants.HF_HUB_OFFLINE


def _parquet_files(hub: ModuleType, place: _Place, revision: str | None) -> list[str]:
    """Paths inside the repository; without the network those that are here."""
    if not _alone(hub):
        try:
            names = hub.HfApi().list_repo_files(place.repository, repo_type="dataset", revision=revision)
        except hub.errors.RevisionNotFoundError:
            names = []
        return sorted(name for name in names if name.endswith(".parquet"))
    if (root := _kept(hub, place, revision)) is None:
        return []
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.parquet"))


def _kept(hub: ModuleType, place: _Place, revision: str | None) -> Path | None:
    """The folder of the hub's cache with what was downloaded of a revision, perhaps not all of it."""
    cache = Path(hub.constants.HF_HUB_CACHE)
    for repository in hub.scan_cache_dir(cache).repos if cache.is_dir() else ():
        if (repository.repo_type, repository.repo_id) == ("dataset", place.repository):
            wanted = {revision or "main"}
            return next((r.snapshot_path for r in repository.revisions if wanted & {*r.refs, r.commit_hash}), None)
    return None


def _fetched(hub: ModuleType, place: _Place, revision: str | None, files: list[str]) -> Path:
    """The folder of a revision with all files of some patterns in it; without the network they have to be there."""
    return Path(
        hub.snapshot_download(
            place.repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=files,
            local_files_only=_alone(hub),
        )
    )


def _subset_of(file: str) -> str:
    """The folder that holds a subset: of `en/train-0.parquet` and of `en/train/0.parquet` it is "en"."""
    folder = PurePosixPath(file).parent
    folder = folder.parent if folder.name.lower() in SPLIT_NAMES else folder
    return "" if folder == PurePosixPath(".") else folder.as_posix()


def _chosen(files: Iterable[str], place: _Place, where: str) -> str:
    subsets = sorted({_subset_of(file) for file in files})
    if place.subset is not None:
        if place.subset in subsets:
            return place.subset
        raise DataError(
            f"{where} has no subset {place.subset!r}.{closest(place.subset, subsets)} {_listed(place, subsets)}"
        )
    usual = [name for name in _USUAL if name in subsets]
    if len(subsets) > 1 and not usual:
        raise DataError(f"{where} has {len(subsets)} subsets. {_listed(place, subsets)}")
    return usual[0] if usual else subsets[0]


def _listed(place: _Place, subsets: list[str]) -> str:
    more = " …" if len(subsets) > 12 else ""
    return (
        f"Its subsets: {', '.join(name or '(none)' for name in subsets[:12])}{more}. "
        f"Name one: read('hub:{place.repository}/{subsets[0]}')"
    )


def _unreachable(where: str, place: _Place, why: str) -> DataError:
    return DataError(
        f"{where} could not be fetched ({why}). Data sets are downloaded once into the hub's cache ($HF_HOME/hub, else "
        "~/.cache/huggingface/hub); REGRAFT_OFFLINE=1 and HF_HUB_OFFLINE=1 forbid it. Without a network, copy the "
        f"Parquet files of https://huggingface.co/datasets/{place.repository} into a folder of this machine and pass "
        "that: read('my_data')"
    )
