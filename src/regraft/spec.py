"""Small frozen values that several stages share: what networks expect as input, one kind for each modality.

Shape letters: C channels, H height, W width (pixels), L tokens, T samples of sound.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from regraft.errors import SourceError

Modality = Literal["image", "text", "audio"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
CropMode = Literal["center", "squash"]
ChannelOrder = Literal["RGB", "BGR"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """What a network for pictures expects as input, in timm's terms.

    Args:
        size: (C, H, W); C is 1 or 3.
        mean: one number per channel, for pixels scaled to 0..1, in the network's own order of channels.
        std: one number per channel.
        interpolation: how pictures are resized.
        crop_pct: side of the crop as a fraction of the resized short side, in (0, 1].
        crop_mode: "center" keeps the aspect ratio and crops the middle; "squash" resizes both sides.
        modality: the kind of input.
        channel_order: in which the network wants colours; networks of Caffe want blue first.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 1.0
    crop_mode: CropMode = "center"
    modality: Modality = "image"
    channel_order: ChannelOrder = "RGB"
    ragged: ClassVar[bool] = False

    def __post_init__(self) -> None:
        channels = self.size[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"mean and std need one number per channel ({channels}): {self.mean}, {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """The inverse of `to_dict`; lists become tuples."""
        return cls(**_tuples(values))


@dataclass(frozen=True)
class InputOverride:
    """What pictures are to be like where that differs from what a network says; None leaves it to the network.

    Args:
        size: (C, H, W), (H, W), or (side,) of a square.
        mean: as in `InputSpec`.
        std: likewise.
        channel_order: likewise.

    Example:
        >>> smaller = InputOverride(size=(96,)).over(InputSpec((3, 224, 224), mean=(0.5,) * 3, crop_pct=0.875))
        >>> smaller.size, smaller.mean, smaller.crop_pct
        ((3, 96, 96), (0.5, 0.5, 0.5), 0.875)
    """

    size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: ChannelOrder | None = None
    modality: ClassVar[Modality] = "image"

    def over(self, found: InputSpec | None, size: tuple[int, int, int] | None = None) -> InputSpec | None:
        """A network's input with this in its place; None where both together do not say enough.

        What nobody says of colours is ImageNet's, as for any network whose file says its size alone.

        Args:
            found: what the network says.
            size: (C, H, W), where it says no more than that.

        Raises:
            SourceError: not one number of mean and std for each channel.
        """
        if found is None and self.size is None and not (size and self.mean and self.std):
            return None
        known = found.size if found else size or (3, 0, 0)
        wanted = self._size_over(known)
        n = wanted[0]
        alike = found if found and found.size[0] == n else InputSpec(wanted, IMAGENET_MEAN[:n], IMAGENET_STD[:n])
        said = {"mean": self.mean, "std": self.std, "channel_order": self.channel_order}
        try:
            return replace(alike, size=wanted, **{name: value for name, value in said.items() if value is not None})
        except ValueError as error:
            raise SourceError(f"{error}. Give one for each, with commas between them: 0.5,0.5,0.5") from None

    def _size_over(self, known: tuple[int, int, int]) -> tuple[int, int, int]:
        if self.size is None:
            return known
        *channels, height, width = self.size * 2 if len(self.size) == 1 else self.size
        return (channels[0] if channels else known[0], height, width)


@dataclass(frozen=True)
class TextSpec:
    """What a network for text expects as input: token ids.

    Prepared rows are int32 (L,), L at most `length`; batches of them are padded with -1.

    Args:
        vocabulary: the content of a `tokenizer.json` of Hugging Face's tokenizers, or words, one a line.
        kind: which of the two `vocabulary` is.
        length: most tokens of one example, the special ones included; longer texts are cut.
        modality: the kind of input.
    """

    vocabulary: str = field(repr=False)
    kind: Literal["tokenizer", "words"] = "tokenizer"
    length: int = 256
    modality: Modality = "text"
    ragged: ClassVar[bool] = True  # prepared rows have different lengths

    @property
    def size(self) -> tuple[int]:
        """(L,) of the longest row."""
        return (self.length,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TextSpec:
        """The inverse of `to_dict`."""
        return cls(**values)


@dataclass(frozen=True)
class MelSpec:
    """How sound becomes a log-mel spectrogram, in librosa's and torchaudio's terms.

    Args:
        win_length: samples under one Hann window.
        hop_length: samples from one window to the next.
        n_fft: points of the Fourier transform; more than `win_length` makes its bins finer, so that no filter is empty.
        n_mels: filters, spread evenly on the mel scale from `f_min` to `f_max`.
        f_min: Hz.
        f_max: Hz, at most half the rate.
        top_db: decibels below the loudest place that are told from silence.
    """

    win_length: int
    hop_length: int
    n_fft: int
    n_mels: int
    f_min: float
    f_max: float
    top_db: float = 80.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MelSpec:
        """The inverse of `asdict`."""
        return cls(**values)


@dataclass(frozen=True)
class AudioSpec:
    """What a network for sound expects as input: samples, or what its feature extractor makes of them.

    At most one of `picture` and `extractor` may be given; with neither, prepared rows are float32 (T,).

    Args:
        rate: samples per second.
        samples: T, of one window; shorter recordings are padded with silence, longer ones cut.
        normalise: whether each recording is scaled to mean 0 and variance 1, as Wav2Vec2 wants it.
        picture: for networks that see: the picture that the log-mel spectrogram is laid out as, uint8 (C, H, W).
        mel: the spectrogram that `picture` shows.
        extractor: for transformers' networks on spectrograms: its `preprocessor_config.json`; rows are float32 of
            the shape `features`.
        features: shape of what the extractor gives.
        modality: the kind of input.
    """

    rate: int
    samples: int
    normalise: bool = False
    picture: InputSpec | None = None
    mel: MelSpec | None = None
    extractor: str = field(default="", repr=False)
    features: tuple[int, ...] = ()
    modality: Modality = "audio"
    ragged: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.picture is None) != (self.mel is None):
            raise ValueError("picture and mel go together: AudioSpec(…, picture=InputSpec(…), mel=MelSpec(…))")
        if self.extractor and (self.picture or not self.features):
            raise ValueError("an extractor comes with the shape of its features, and without a picture")

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of one prepared row."""
        return self.picture.size if self.picture else self.features or (self.samples,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AudioSpec:
        """The inverse of `to_dict`."""
        picture, mel = values.get("picture"), values.get("mel")
        nested = {"picture": picture and InputSpec.from_dict(picture), "mel": mel and MelSpec.from_dict(mel)}
        return cls(**_tuples(values) | nested)


Spec = InputSpec | TextSpec | AudioSpec


def spec_from_dict(values: dict[str, Any]) -> Spec:
    """The spec whose `to_dict` gave these values, of whatever modality.

    Example:
        >>> spec_from_dict(TextSpec("the\\na", kind="words", length=8).to_dict()).size
        (8,)
    """
    kinds: dict[str, type[Spec]] = {"image": InputSpec, "text": TextSpec, "audio": AudioSpec}
    return kinds[values.get("modality", "image")].from_dict(values)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
