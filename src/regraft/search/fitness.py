"""Does the data suit what a source expects? Said by its kind and size, then measured on a few dozen examples.

Pictures: their size, and whether the declared preprocessing is the right one (`preprocessing`). Texts: whether the
source's vocabulary knows their words, and whether it reads them to the end. Recordings: their rate and length.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from regraft.cache import recall, remember
from regraft.cut import Traced
from regraft.data import Dataset
from regraft.data.audio import WINDOWS, share_of_long
from regraft.data.text import coverage
from regraft.digest import digest_package
from regraft.search.features import Means
from regraft.search.ideas import FEW_LONG
from regraft.search.preprocessing import Reading, alternatives, reading
from regraft.source import Source
from regraft.source.transformers.audio import wants_mask
from regraft.spec import AudioSpec, InputSpec, Modality, TextSpec

Verdict = Literal["fits", "warns", "refuses"]

_ENLARGED = 4.0
_EMPTY, _MANY = 0.5, 0.05  # of a window that silence pads, and of the recordings that may leave so much
_TEXTS = 500  # looked up in the vocabulary, spread evenly


@dataclass(frozen=True)
class Fitness:
    """Whether a dataset suits a source.

    Args:
        verdict: "fits", "warns", or "refuses".
        reasons: with the remedy, one sentence each.
        reading: how the usual ways to prepare pictures compare.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    reading: Reading = Reading()  # noqa: RUF009  (frozen)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check(data: Dataset, source: Source, traced: Traced, means: Means) -> Fitness:
    """Compare a dataset with what a source expects.

    Args:
        data: whose training examples are looked at.
        source: the network.
        traced: its graph.
        means: its cache keeps what was measured.
    """
    if data.modality != source.input.modality:
        return Fitness("refuses", (_other_kind(data, source),))
    train, found = data.split("train"), Reading()
    if isinstance(source.input, InputSpec):
        found = _kept(data, source, traced, means)
        reasons = [_too_small(train, source.uri, source.input), _misread(source.uri, source.input, found)]
    elif isinstance(source.input, TextSpec):
        reasons = _words(train, source.uri, source.input)
    else:
        spec = source.input
        reasons = [_slow(train, source.uri, spec), _long(train, source.uri, spec), _padded(train, source, spec)]
    reasons = tuple(reason for reason in reasons if reason)
    return Fitness("warns" if reasons else "fits", reasons, found)


def _kept(data: Dataset, source: Source, traced: Traced, means: Means) -> Reading:
    """What was measured, now or before."""
    train = data.split("train")
    examples = [train.keys, train.y.tolist(), len(data.classes), data.task.to_dict()]
    network = [source.weights_digest, traced.architecture, source.input.to_dict()]
    key = [examples, network, digest_package("regraft.search")]
    if (known := recall(means.root, "reading", key)) is not None:
        by, values, doubt, best = known[0]
        return Reading(by, tuple((name, value) for name, value in values), doubt, best)
    found = reading(data, source, traced)
    remember(means.root, "reading", key, [found.by, found.values, found.doubt, found.best], {})
    return found


_FOR: dict[Modality, str] = {
    "image": "timm:mobilenetv2_100.ra_in1k",
    "text": "hf:sentence-transformers/all-MiniLM-L6-v2",
    "audio": "hf:facebook/wav2vec2-base",
}


def _other_kind(data: Dataset, source: Source) -> str:
    return (
        f"{source.uri} expects {source.input.modality}, and {data.name} holds {data.modality}. "
        f"Take a source for {data.modality}, such as --source {_FOR[data.modality]}"
    )


def _too_small(train: Dataset, uri: str, spec: InputSpec) -> str:
    sides = [min(example.width, example.height) for example in train.examples]
    wanted, median = min(spec.size[1:]), float(np.median(sides))
    if wanted <= _ENLARGED * median:
        return ""
    return (
        f"pictures of {median:.0f} pixels are enlarged {wanted / median:.0f} times for {uri}; details that it "
        "looks for are not there. A source that was trained on small pictures may do better: rank several with "
        "regraft rank"
    )


def _misread(uri: str, declared: InputSpec, found: Reading) -> str:
    """That another preprocessing explains the pictures so much better that the declared one is in doubt."""
    if not found.doubt:
        return ""
    return (
        f"with the declared preprocessing of {uri} {found.doubt} than with {found.best}. If that is right, say "
        f"so: {_flags(found.best, declared)}"
    )


def _flags(name: str, declared: InputSpec) -> str:
    """What is to be said; the rest stays as declared."""
    spec = dict(alternatives(declared))[name]
    if spec.channel_order != declared.channel_order:
        return f"--channel-order {spec.channel_order}"
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    return f"--mean {mean} --std {std}"


def _words(train: Dataset, uri: str, spec: TextSpec) -> list[str]:
    """What the source's vocabulary does not make of the texts."""
    places = np.unique(np.linspace(0, len(train) - 1, min(_TEXTS, len(train))).round().astype(int))
    some = replace(train, examples=tuple(train.examples[i] for i in places))
    advice = f"Another source may know them: regraft rank DATA --source {uri} --source URI"
    return [f"{warning} (vocabulary of {uri}). {advice}" for warning in coverage(some, spec).warnings()]


def _slow(train: Dataset, uri: str, spec: AudioSpec) -> str:
    rate = float(np.median([example.height for example in train.examples]))
    if rate >= spec.rate:
        return ""
    return (
        f"recordings of {rate:,.0f} samples a second hold nothing above {rate / 2:,.0f} Hz, and {uri} was trained on "
        f"{spec.rate:,}. If there are recordings at that rate, use those; else a source for {rate:,.0f} may do better"
    )


def _long(train: Dataset, uri: str, spec: AudioSpec) -> str:
    share = share_of_long(train, spec)
    if share <= FEW_LONG:
        return ""
    return (
        f"{100 * share:.0f} % of the recordings are longer than the {spec.samples / spec.rate:.1f} seconds that {uri} "
        f"hears. Of those only the middle counts, but where predictions are averaged over {WINDOWS} windows, which "
        f"auto tries last and --set views={WINDOWS} --set average_views={WINDOWS} asks for. If what tells the classes "
        "apart may lie elsewhere, cut them into pieces of that length, each with its label"
    )


def _padded(train: Dataset, source: Source, spec: AudioSpec) -> str:
    """That a network hears silence which it was trained to leave out."""
    seconds, window = np.array([e.width / e.height for e in train.examples]), spec.samples / spec.rate
    share = float((seconds < (1 - _EMPTY) * window).mean())
    if share <= _MANY or not wants_mask(source):
        return ""
    return (
        f"{100 * share:.0f} % of the recordings fill less than half of the {window:.1f} seconds that {source.uri} "
        "hears; silence pads them, and it was trained to leave that out (attention_mask), which is not done here. One "
        "that was not, with feat_extract_norm 'group' in its config.json, may do better: --source "
        "hf:facebook/hubert-base-ls960"
    )
