"""What pictures, texts and recordings differ in: words, endings, and how encoded bytes are opened and looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PIL import Image

from regraft.data.audio.sound import SOUND_SUFFIXES, Sound, open_sound, quality
from regraft.data.locate import Locator, is_decoded
from regraft.data.picture import SUFFIXES as PICTURE_SUFFIXES
from regraft.data.picture import confirm_whole, open_picture
from regraft.data.text.opening import SUFFIXES as TEXT_SUFFIXES
from regraft.data.text.opening import look_at_text, open_text, plain_bytes
from regraft.digest import digest_bytes
from regraft.errors import DataError
from regraft.spec import Modality

_CLIPPED = 0.01  # share of samples at full scale that can be heard


@dataclass(frozen=True)
class Medium:
    """One modality, as the readers see it.

    Args:
        modality: its name.
        noun: what one example is called; its plural ends in s.
        sample: what a file of one may be called.
        suffixes: endings of files, lower case.
        decode: what encoded bytes hold; raises BadExample.
        look: width, height and mode of what was opened, given its content too; raises BadExample if it cannot be used.
        canonical: the part of encoded bytes that counts for the key.
    """

    modality: Modality
    noun: str
    sample: str
    suffixes: frozenset[str]
    decode: Callable[[bytes], Any]
    look: Callable[[Any, bytes], tuple[int, int, str]]
    canonical: Callable[[bytes], bytes] = bytes

    def key(self, locator: Locator, content: bytes) -> str:
        """The content key of an example."""
        return digest_bytes(content if is_decoded(locator) else self.canonical(content))

    def open(self, locator: Locator, content: bytes) -> Any:
        """The picture, text or recording."""
        return locator.opened(content) if is_decoded(locator) else self.decode(content)


def _look_at_picture(picture: Image.Image, content: bytes) -> tuple[int, int, str]:
    """Width, height and Pillow's mode, from the header."""
    size, mode = picture.size, picture.mode
    confirm_whole(picture, content)
    return *size, mode


def _look_at_sound(sound: Sound, content: bytes) -> tuple[int, int, str]:
    """Samples, samples per second, and what the ear would notice first."""
    heard = quality(sound)
    mode = "silent" if heard.silent else "clipped" if heard.clipped > _CLIPPED else "clean"
    return len(sound.samples), sound.rate, mode


MEDIA: dict[Modality, Medium] = {
    medium.modality: medium
    for medium in (
        Medium("image", "picture", "picture.jpg", PICTURE_SUFFIXES, open_picture, _look_at_picture),
        Medium("text", "text", "review.txt", TEXT_SUFFIXES, open_text, look_at_text, plain_bytes),
        Medium("audio", "recording", "word.wav", SOUND_SUFFIXES, open_sound, _look_at_sound),
    )
}
_BY_ENDING: dict[str, Modality] = {suffix: medium.modality for medium in MEDIA.values() for suffix in medium.suffixes}


def modality_of_files(paths: Iterable[str], where: str) -> Modality:
    """The one modality that the files have by their endings; pictures, if no ending is known.

    Texts beside as many pictures or recordings are captions or notes, and no examples.

    Args:
        paths: names of files.
        where: what they were found in, for the message.

    Raises:
        DataError: more than one modality.
    """
    endings = Counter(PurePath(path).suffix.lower() for path in paths)
    counts: Counter[Modality] = Counter()
    for ending in endings.keys() & _BY_ENDING.keys():
        counts[_BY_ENDING[ending]] += endings[ending]
    if counts["text"] <= counts.total() / 2:
        del counts["text"]
    if len(counts) > 1:
        held = " and ".join(f"{n} {MEDIA[kind].noun}s" for kind, n in counts.items())
        raise DataError(
            f"{where} holds {held} by their endings. Expected one kind, or say which: "
            f"read({where!r}, modality={counts.most_common(1)[0][0]!r})"
        )
    (found,) = counts or ("image",)
    return found
