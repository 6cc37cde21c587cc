"""TorchScript as a source: the module's own answers, names and cuts; its code is read, and never run."""

from __future__ import annotations

import time
import warnings
import zipfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from graphs import check_laws
from programs import NETWORKS, made, relative
from torch import Tensor, nn
from torch.nn import functional as F

from damage import mutations
from readers import MARK
from regraft.cut import trace
from regraft.errors import RegraftError, SourceError
from regraft.source import MissingInput, Source, load_source, with_random_weights, write_source
from regraft.spec import InputSpec
from regraft.testing import TINY_ARCH, check_source, tiny_source

warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
SPEC = InputSpec(size=(3, 16, 16))
How = Callable[[nn.Module], torch.jit.ScriptModule]


def quiet(how: How) -> How:
    def saved(module: nn.Module) -> torch.jit.ScriptModule:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return how(module)

    return saved


@quiet
def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.script(module)


def traced(n: int) -> How:
    return quiet(lambda module: torch.jit.trace(module, torch.rand(n, 3, 16, 16), check_trace=False))  # type: ignore[arg-type,return-value]


@quiet
def without_gradients(module: nn.Module) -> torch.jit.ScriptModule:
    with torch.no_grad():
        return traced(2)(module)


HOW = {"traced": traced(2), "traced with one": traced(1), "without gradients": without_gradients, "scripted": scripted}


def saved(module: nn.Module, path: Path, how: How = scripted) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(how(module), path)
    return path


def opened(path: Path | str) -> Source:
    return load_source(str(path), input=SPEC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(made("convolutions"), tmp_path_factory.mktemp("script") / "net.pt")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_has_its_modules_answers_and_names(name: str, how: str, tmp_path: Path) -> None:
    model = made(name)
    source = opened(saved(model, tmp_path / "net.pt", HOW[how]))
    for n in (1, 2, 5):
        x = torch.rand(n, 3, 16, 16)
        assert relative(source.model(x), model(x)) < 1e-6
    assert source.report is not None and source.report.complete
    assert {n for n, _ in source.model.named_parameters()} == {n for n, _ in model.named_parameters()}
    model.load_state_dict(source.model.state_dict(), strict=name != "convolutions")  # TorchScript keeps every buffer


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_cut_where_the_module_is(name: str, tmp_path: Path) -> None:
    model = made(name)
    found = [cut.name for cut in check_laws(opened(saved(model, tmp_path / "net.pt"))).cuts]
    wanted = [cut.name for cut in trace(model, torch.rand(2, 3, 16, 16)).cuts]
    assert set(wanted) <= set(found)  # scripted code may slice once more than Python did


def test_it_keeps_the_contract_of_sources(whole: Path, tmp_path: Path) -> None:
    source = opened(whole)
    check_source(source)
    twin, other = (with_random_weights(source, seed=seed).model.state_dict() for seed in (1, 2))
    assert torch.equal(twin["scale"], source.model.state_dict()["scale"])
    assert not torch.equal(twin["c.weight"], other["c.weight"])
    write_source(tmp_path / "net", source)
    assert load_source(str(tmp_path / "net")).weights_digest == source.weights_digest


def test_it_may_end_at_a_module_or_a_value(whole: Path) -> None:
    model, x = made("convolutions"), torch.rand(2, 3, 16, 16)
    below = opened(f"{whole}#bn")
    assert relative(below.model(x), model.get_submodule("bn")(model.get_submodule("c")(x))) < 1e-6
    assert below.report is not None and "l.weight" in below.report.unexpected
    with pytest.raises(SourceError, match=r"no module or value 'poll'\. Did you mean 'pool'"):
        opened(f"{whole}#poll")


def test_the_input_is_asked_for_with_the_size_that_a_trace_says(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="--input-size 3,224,224 --mean"):
        load_source(str(whole))
    path = saved(made("convolutions"), tmp_path / "net.pt", traced(2))
    with pytest.raises(MissingInput, match="--input-size 3,16,16 --mean"):
        load_source(str(path))
    with pytest.raises(SourceError, match=r"takes pictures of .*\(3, any, any\), asked for \(1, 16, 16\)"):
        load_source(str(path), input=InputSpec(size=(1, 16, 16), mean=(0.0,), std=(1.0,)))


def test_a_size_that_the_program_refuses_is_said_in_its_own_words(tmp_path: Path) -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] != 8:
                raise ValueError(f"a height of 8, not {x.shape[2]}")
            return self.l(x.mean((2, 3)))

    with pytest.raises(SourceError, match=r"does not take such pictures: it raises 'a height of 8, not 16'"):
        opened(saved(Strict(), tmp_path / "net.pt"))


def test_with_an_architecture_it_is_a_file_of_weights(tmp_path: Path) -> None:
    path = saved(tiny_source().model, tmp_path / "net.pt")
    assert load_source(str(path), arch=TINY_ARCH).arch == tiny_source().arch
    assert load_source(str(path), input=tiny_source().input).arch == "pt2:graph"


class Scale(Enum):
    ONE = 1
    TWO = 2


class Pair(NamedTuple):
    small: Tensor
    large: Tensor


def halves(x: Tensor, parts: list[int]) -> list[Tensor]:
    found: list[Tensor] = []
    for part in parts:
        found.append(x[:, part::2])
    return found


class Statements(nn.Module):
    """What Python leaves in scripted code: branches, loops, lists, dictionaries, tuples, optional values, texts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)])
        self.named = nn.ModuleDict({"last": nn.Linear(4, 2)})
        self.bias: Tensor | None = None
        self.offset, self.scale, self.times = torch.full((4, 1, 1), 0.5), Scale.TWO, {"again": 2}
        self.sizes = [1, 3]

    def pair(self, x: Tensor) -> Pair:
        return Pair(small=x.amin((2, 3)), large=x.amax((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == 0 and self.bias is None:
                x = x + self.offset if self.scale == Scale.TWO else x
        k = 0
        while k < self.times["again"]:
            x = F.relu(x, inplace=True) * (1.0 + k)
            k += 1
        if self.training:
            return x.mean((1, 2))
        assert len(self.sizes) == 2, "two of them"
        even, odd = halves(x, [0, 1])
        x = torch.cat([even, odd], 1).reshape([n, 2 * self.sizes[0] + 2, -1, 2]).flatten(2).unsqueeze(-1)
        both = self.pair(x)
        name = "large" if f"{n}" != "" else "small"
        x = both.large if name == "large" else both.small
        for layer in self.named.values():
            x = layer(x)
        return x.view(n, -1) / (x.shape[1] ** 2 // 2)


def test_what_python_leaves_in_scripted_code(tmp_path: Path) -> None:
    model = Statements().eval()
    source = opened(saved(model, tmp_path / "net.pt"))
    x = torch.rand(3, 3, 16, 16)
    assert relative(source.model(x), model(x)) < 1e-6
    assert source.model.state_dict().keys() == model.state_dict().keys()
    check_laws(source)


class Norms(nn.Module):
    """Norms with statistics, without, and of instances; dropout in three places."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.bn, self.own = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)
        self.each, self.drop, self.l = nn.InstanceNorm2d(4), nn.Dropout2d(0.5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.drop(self.each(self.bn(self.c(x)))), 0.5, self.training)
        return self.l(F.batch_norm(x.flatten(2).mean(2)[None], None, None, training=True)[0])


@pytest.mark.parametrize("how", ["traced", "scripted"])
def test_programs_in_training_mode_are_read_in_evaluation(how: str, tmp_path: Path) -> None:
    model = Norms().train()
    source = opened(saved(model, tmp_path / "net.pt", HOW[how]))
    model.eval()
    x = torch.rand(3, 3, 16, 16)
    assert relative(source.model(x), model(x)) < 1e-6
    assert torch.equal(source.model.state_dict()["bn.running_mean"], model.bn.running_mean)


class Layer(nn.Module):
    """Layers that PyTorch computes in one piece where gradients are off, with norms before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, activation="gelu")
        self.second = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.patches(x).flatten(2).transpose(1, 2))).mean(1)


def test_layers_of_transformers_in_one_piece_are_taken_apart(tmp_path: Path) -> None:
    model = Layer().eval()
    path = saved(model, tmp_path / "net.pt", without_gradients)
    with zipfile.ZipFile(path) as archive:
        assert any(b"_transformer_encoder_layer_fwd" in archive.read(name) for name in archive.namelist())
    source = opened(path)
    x = torch.rand(3, 3, 16, 16)
    assert relative(source.model(x), model(x)) < 1e-6
    check_laws(source)


class Baked(nn.Module):
    """A network whose trace holds the number of pictures as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.token, self.l = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.rand(1, 1, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        n = int(x.shape[0])
        x = self.c(x).reshape(n, 4, 16).transpose(1, 2)
        return self.l(torch.cat([self.token.expand(n, 1, 4), x], 1).mean(1))


class Ranks(nn.Module):
    """A network whose answer to a picture depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.l(x - x.mean(0))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_fixed_number_of_pictures_is_mended(n: int, tmp_path: Path) -> None:
    model = Baked().eval()
    source = opened(saved(model, tmp_path / "net.pt", traced(n)))
    for count in (1, 2, 7):
        x = torch.rand(count, 3, 16, 16)
        assert relative(source.model(x), model(x)) < 1e-6


def test_an_answer_that_depends_on_the_other_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"made for 2 pictures, and the answer to one depends on how many"):
        opened(saved(Ranks(), tmp_path / "net.pt", traced(2)))


def test_shared_weights_stay_shared_and_half_precision_becomes_single(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1)).bfloat16()
    model[2].weight = model[0].weight
    source = opened(saved(model, tmp_path / "net.pt"))
    names = dict(source.model.named_parameters(remove_duplicate=False))
    assert names["0.weight"] is names["2.weight"] and names["0.bias"] is not names["2.bias"]
    x = torch.rand(2, 3, 16, 16)
    assert source.model(x).dtype == torch.float32
    assert relative(source.model(x), model.float()(x)) < 1e-6


# what is refused --------------------------------------------------------------------------------------


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.l(torch.fft.rfft2(x).abs().mean((2, 3)))


class Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.l(x.mean((2, 3)))
        return x if bool(x.sum() > 0) else -x


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.l(x.mean((2, 3))) + y


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Spectrum, r"the operation fft_rfft2 as it is called there, which is not read"),
        (Asks, r"depends on the values of the pictures"),
        (Two, r"takes 2 inputs, expected pictures alone"),
    ],
)
def test_what_is_not_read_is_named(network: Callable[[], nn.Module], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        opened(saved(network().eval(), tmp_path / "net.pt"))


def test_rows_and_programs_without_names_are_refused(tmp_path: Path) -> None:
    rows = quiet(lambda module: torch.jit.trace(module, torch.rand(2, 4)))  # type: ignore[arg-type,return-value]
    with pytest.raises(SourceError, match="traced with an input of 2 axes"):
        opened(saved(nn.Linear(4, 2), tmp_path / "rows.pt", rows))
    with pytest.raises(SourceError, match=r"torch\.jit\.freeze made constants"):
        opened(saved(made("convolutions"), tmp_path / "frozen.pt", lambda m: torch.jit.freeze(scripted(m))))
    model = made("convolutions")
    nn.init.constant_(model.c.weight, torch.nan)  # type: ignore[union-attr,arg-type]
    with pytest.raises(SourceError, match=r"NaN.*c\.weight"):
        opened(saved(model, tmp_path / "nan.pt"))


def test_code_that_runs_on_opening_is_refused(tmp_path: Path) -> None:
    class Restored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.l(x.mean((2, 3)))

        @torch.jit.export
        def __getstate__(self) -> tuple[Tensor, bool]:
            return self.l.weight, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[Tensor, bool]) -> None:
            self.training = state[1]

    with pytest.raises(SourceError, match=r"__setstate__.*code that runs by itself"):
        opened(saved(Restored(), tmp_path / "net.pt"))


# attacks ----------------------------------------------------------------------------------------------

FORWARD = "    c = self.c\n"


def recoded(whole: Path, to: Path, change: Callable[[str], str]) -> Path:
    """A copy of the archive in which the outermost module's code is changed."""
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".py") and FORWARD.encode() in content:
                content = change(content.decode()).encode()
            new.writestr(name, content)
    return to


@pytest.mark.parametrize(
    "code",
    [
        f'x = torch.from_file("{MARK}", True, 4)',
        f'torch.save(x, "{MARK}")',
        f'x = ops.aten.from_file("{MARK}", True, 4)',
        f'ops.mine.run("{MARK}")',
        f'torch.ops.mine.run("{MARK}")',
        f"__import__('os').system('touch {MARK}')",
        f"open('{MARK}', 'w')",
        f"x = (x).__class__.__init__.__globals__['open']('{MARK}', 'w')",
        f"eval(\"open('{MARK}', 'w')\")",
        f"x = [y for y in [open('{MARK}', 'w')]]",
        f"f = lambda: open('{MARK}', 'w')",
        "import os",
        "x = torch.as_strided(x, [1000000], [1], 100)",
        "x = torch.rand([2, 2])",
        "x = torch.set_(x, x)",
        "x = torch.__class__(x)",
        "x = CONSTANTS.c99",
        "x = CONSTANTS.c",
        "(self).absent(x, )",
        "x = self.absent",
        "self.c = x",
        "x = __torch__.os.system(x, )",
        "del x",
        "x = 1 @ 2",
        "x = torch.relu(*[x])",
        "x = torch.relu(**{'self': x})",
        "x = [1][5]",
        "x, y, = x",
        "return 3",
    ],
)
def test_only_what_is_known_is_carried_out(
    code: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recoded(whole, tmp_path / "net.pt", lambda text: text.replace(FORWARD, f"    {code}\n{FORWARD}"))
    with pytest.raises(SourceError, match=r"not read here|is damaged|attribute"):
        opened(path)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n      pass",
        "for i in range(1000000000):\n      pass",
        "return (self).forward(x, )",
        "l = [x]\n    while True:\n      l = torch.add(l, l)",
        "l = torch.mul([x], 1000000000)",
        "s = 'a'\n    while True:\n      s = torch.add(s, s)",
        "s = 'a'\n    while True:\n      s = torch.format('{}{}', s, s)",
        "s = 9\n    while True:\n      s = torch.mul(s, s)",
        "s = torch.pow(9, 999999999)",
        "while True:\n      y = torch.relu(x)",
        "y = torch.zeros([1000000, 1000000])",
        "y = torch.repeat(x, [1, 1, 500, 500])\n    x = torch.slice(torch.mul(y, 2), 2, 0, 16)",
        "y = torch.unbind(torch.zeros([10000000]))",
        "y = " + "-" * 5000 + "1",
        "y = x" + ".a" * 3000,
        "y = x" + "[0]" * 3000,
        "y = f'" + "{x}" * 3000 + "'",
        "import a" + ".a" * 100_000,
    ],
)
def test_code_without_end_comes_to_one(code: str, whole: Path, tmp_path: Path) -> None:
    path = recoded(whole, tmp_path / "net.pt", lambda text: text.replace(FORWARD, f"    {code}\n{FORWARD}"))
    began = time.process_time()
    with pytest.raises(SourceError):
        opened(path)
    assert time.process_time() - began < 10


def test_damaged_files_are_one_message_or_a_network(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    refused = 0
    for content in mutations(whole.read_bytes(), 40):
        path.write_bytes(content)
        refused += _is_refused(path)
    with zipfile.ZipFile(whole) as archive:
        code = next(text for name in archive.namelist() if FORWARD.encode() in (text := archive.read(name)))
    for content in mutations(code, 60):
        recoded(whole, path, lambda _, content=content: content.decode("latin-1"))
        refused += _is_refused(path)
    assert refused > 50


def _is_refused(path: Path) -> bool:
    try:
        opened(path)
    except RegraftError as error:
        assert str(error)
        return True
    return False
