"""The other commands: each shows what it promises, and says it in JSON when asked."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from conftest import TINY  # type: ignore[import-not-found]
from regraft.source.cifar_resnet import resnet20


def test_inspect_lists_cuts_with_names_and_shapes(run, weights):
    answer = run("inspect", weights, "--arch", TINY, "--json")
    facts = json.loads(answer.out)
    assert facts["cuts"][0]["name"] == "input" and facts["cuts"][0]["shape"] == [3, 32, 32]
    assert all({"name", "shape"} <= cut.keys() for cut in facts["cuts"])


@pytest.mark.parametrize(
    "words",
    [("--set", "drop_above=block2"), ("--set", "taps=block2@2"), ("--cut", "block3")],
    ids=" ".join,
)
def test_plan_and_fit_find_a_probe_for_where_the_recipe_reads(run, pictures, weights, tmp_path, words):
    common = (pictures, "--source", weights, "--arch", TINY, "--recipe", "finetune", "--set", "min_updates=5", *words)
    planned = run("plan", *common, "--json")
    fitted = run("fit", *common, "--evidence", "off", "--out", tmp_path / "run", "--json")
    assert (planned.status, fitted.status) == (0, 0), planned.err + fitted.err
    [plan] = json.loads(planned.out)
    assert plan["taps"] == json.loads((tmp_path / "run/plan.json").read_text())["taps"]


def test_inspect_counts_a_dataset(run, pictures):
    facts = json.loads(run("inspect", pictures, "--json").out)
    assert facts["classes"] == ["cross", "disc", "square"]
    assert sum(sum(counts.values()) for counts in facts["counts"].values()) == 60


def test_inspect_tells_a_problem_that_many_examples_have_once(run, pictures, tmp_path):
    (tmp_path / "split").mkdir()
    for split in ("train", "test"):
        shutil.copytree(pictures, tmp_path / "split" / split)
    (line,) = [line for line in run("inspect", tmp_path / "split").out.splitlines() if "duplicate" in line]
    problems = json.loads(run("inspect", tmp_path / "split", "--json").out)["problems"]
    found = [problem for problem in problems if problem["kind"] == "duplicate across splits"]
    assert len(found) > 1 and line.endswith(f"(and {len(found) - 1} more, which --json lists)")


def test_inspect_speaks_of_characters_where_there_are_texts(run, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(12)))
    assert json.loads(run("inspect", table, "--json").out)["sizes"] == {
        "characters": [6, 6, 7],
        "encodings": {"utf-8": 12},
    }
    assert "characters (6, 6, 7) (min, median, max)" in run("inspect", table).out


def test_inspect_knows_a_text_file_of_word_vectors(run, tmp_path):
    vectors = tmp_path / "glove.txt"
    vectors.write_text("".join(f"word{i} {i}.5 0.25 -1.0\n" for i in range(5)))
    assert json.loads(run("inspect", vectors, "--json").out)["cuts"][-1]["shape"] == [3]


@pytest.mark.parametrize("setting", ["views=3", "average_views=3"])
def test_views_of_texts_are_refused_before_any_work(run, tmp_path, setting):
    table, vectors = tmp_path / "t.csv", tmp_path / "glove.txt"
    table.write_text("text,label\n" + "".join(f"word{i % 5} word{i % 2},{i % 2}\n" for i in range(40)))
    vectors.write_text("".join(f"word{i} {i}.5 0.25 -1.0\n" for i in range(5)))
    chosen = (table, "--source", vectors, "--recipe", "probe", "--set", setting)
    for words in (("plan", *chosen), ("fit", *chosen, "--out", tmp_path / "run")):
        answer = run(*words, "--cache", tmp_path / "cache")
        assert answer.status == 2 and answer.err.rstrip().endswith(f"--set {setting[:-1]}0."), answer.err
        assert not [*(tmp_path / "cache").rglob("*.npy")] and not (tmp_path / "run").exists()


def test_inspect_looks_at_the_kind_of_examples_that_is_named(run, tmp_path):
    for i in range(4):
        folder = tmp_path / "mixed" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(f"some words {i}")
        (folder / f"{i}.png").write_bytes(b"no picture")
    found = run("inspect", tmp_path / "mixed", "--modality", "text", "--json")
    assert found.status == 0 and json.loads(found.out)["modality"] == "text", found.err


def test_tables_for_people(run, pictures, weights):
    source = ("--source", weights, "--arch", TINY)
    assert "params" in run("inspect", weights, "--arch", TINY).out.replace("parameters", "params")
    assert "disc" in run("inspect", pictures).out
    assert "best of all" in run("probe", pictures, *source).out
    assert "trained above" in run("plan", pictures, *source, "--recipe", "finetune").out


def test_plan_of_a_recipe_that_needs_no_probe_computes_no_features(run, pictures, weights, tmp_path):
    common = ("plan", pictures, "--source", weights, "--arch", TINY, "--cache", tmp_path)
    for words in (("--recipe", "naive"), ("--recipe", "scratch"), ("--recipe", "finetune", "--set", "head=fresh")):
        assert "trained above" in run(*common, *words).out
        assert not [*tmp_path.rglob("*.npy")]
    assert "The features of all stages took" in run(*common, "--recipe", "finetune").out
    assert [*tmp_path.rglob("*.npy")]


def test_plan_without_a_recipe_says_what_the_search_would_try(run, pictures, weights):
    common = ("plan", pictures, "--source", weights, "--arch", TINY, "--time-limit", "1h")
    (plan,) = json.loads(run(*common, "--json").out)
    assert plan["seconds_in_all"] > 0 and 0 < plan["search"]["seconds"] <= 3600
    (named,) = json.loads(run(*common, "--recipe", "finetune", "--json").out)
    assert "search" not in named
    told = run(*common[:-1], "0.1s").out
    assert "no training is expected to fit" in told


def test_plan_names_every_tensor_once(run, pictures, weights):
    answer = run("plan", pictures, "--source", weights, "--arch", TINY, "--recipe", "finetune", "--json")
    (plan,) = json.loads(answer.out)
    names = [name for row in plan["rows"] for name in row["names"]]
    assert len(names) == len(set(names)) and {row["state"] for row in plan["rows"]} >= {"trained", "frozen"}


def test_probe_reads_no_test_split(run, pictures, weights):
    (found,) = json.loads(run("probe", pictures, "--source", weights, "--arch", TINY, "--json").out)
    assert found["best"] in found["profile"] and not any("test" in key for key in found["best"])


def test_report_is_the_same_bytes_when_written_again(run, pictures, weights, tmp_path):
    out = tmp_path / "run"
    flags = ("--arch", TINY, "--recipe", "probe", "--evidence", "off", "--out", out)
    assert run("fit", pictures, "--source", weights, *flags).status == 0
    before = (out / "report.html").read_bytes()
    assert json.loads(run("report", out, "--json").out) == {"report": str(out / "report.html")}
    assert (out / "report.html").read_bytes() == before
    refused = run("report", out, "--out", tmp_path / "one.html")
    assert refused.status == 2 and refused.err.rstrip().endswith(f"regraft report {out}")
    assert not (tmp_path / "one.html").exists()


def test_cache_list_verify_clean(run, pictures, weights):
    run("probe", pictures, "--source", weights, "--arch", TINY)
    caches = json.loads(run("cache", "list", "--json").out)
    assert caches and all(cache["rows"] == 60 for cache in caches)
    assert run("cache", "verify").status == 0
    assert json.loads(run("cache", "verify", "--json").out) == {
        "caches": len(caches),
        "shards": len(caches),
        "damaged": [],
    }
    cleaned = json.loads(run("cache", "clean", "--json").out)
    assert set(cleaned["removed"]) == {cache["folder"] for cache in caches} and cleaned["bytes"] > 0
    assert json.loads(run("cache", "list", "--json").out) == []


def test_a_damaged_cache_is_named_and_can_be_removed(run, pictures, weights):
    run("probe", pictures, "--source", weights, "--arch", TINY)
    folder = json.loads(run("cache", "list", "--json").out)[0]["folder"]
    shard = next(Path(folder).glob("rows-*.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    broken = run("cache", "verify")
    assert broken.status == 2 and shard.stem in broken.out and "--remove" in broken.err
    told = run("cache", "verify", "--json")
    (damage,) = json.loads(told.out)["damaged"]
    assert told.status == 2 and shard.stem in damage["path"] and damage["reason"]
    assert run("cache", "verify", "--remove").status == 0
    assert run("cache", "verify").status == 0


def test_pretrain_makes_a_source_that_fit_opens(run, pictures, tmp_path):
    out = tmp_path / "source"
    flags = ("--arch", TINY, "--epochs", 2, "--val-fraction", 0.2, "--out", out)
    answer = run("pretrain", pictures, "--objective", "supervised", *flags, "--json")
    assert answer.status == 0, answer.err
    told = json.loads(answer.out)
    assert told["source"] == str(out) and 0 <= told["val_accuracy"] <= 1
    facts = json.loads(run("inspect", out, "--arch", TINY, "--json").out)
    assert "missing" not in facts["report"] and facts["classes"] == 3


def test_pretrain_without_labels_takes_pictures_in_any_folder(run, pictures, tmp_path):
    flags = ("--arch", TINY, "--epochs", 1, "--val-fraction", 0.2, "--out", tmp_path / "source", "--json")
    one_class = pictures / "disc"
    refused = run("pretrain", one_class, *flags)
    assert refused.status == 2 and "no folder per class" in refused.err and not (tmp_path / "source").exists()
    answer = run("pretrain", one_class, "--objective", "corrupted", *flags)
    assert answer.status == 0, answer.err
    assert json.loads(run("inspect", tmp_path / "source", "--arch", TINY, "--json").out)["classes"] == 2


@pytest.fixture
def other_weights(tmp_path: Path) -> Path:
    """Those of another architecture."""
    path = tmp_path / "resnet20.pt"
    torch.save(resnet20().state_dict(), path)
    return path


def test_each_of_several_sources_has_an_architecture_of_its_own(run, pictures, weights, other_weights):
    both = ("--source", weights, "--source", other_weights)
    of_each = ("--arch", f"{weights}={TINY}", "--arch", f"{other_weights}=regraft.source.cifar_resnet:resnet20")
    of_one = ("--arch", TINY, *of_each[2:])
    for architectures in (of_each, of_one):
        answer = run("rank", pictures, *both, *architectures, "--json")
        assert answer.status == 0, answer.err
        assert {each["source"] for each in json.loads(answer.out)} == {str(weights), str(other_weights)}


@pytest.mark.parametrize("said", [("elsewhere.pt={0}",), ("{0}", "{0}")], ids=["of a stranger", "two for the same"])
def test_an_architecture_for_no_source_ends_with_one_that_would_have_worked(run, pictures, weights, said):
    words = [word for text in said for word in ("--arch", text.format(TINY))]
    answer = run("rank", pictures, "--source", weights, *words)
    assert answer.status == 2
    assert f"For example: --arch {weights}=timm:resnet18" in answer.err.replace("\n", "")


def test_inspect_opens_a_graph_up_to_one_of_its_nodes(run):
    network = Path(__file__).parents[1] / "source" / "fixtures" / "onnx" / "residual_21.onnx"
    whole = json.loads(run("inspect", network, "--json").out)
    name = whole["cuts"][2]["name"]
    part = run("inspect", f"{network}#{name}", "--json")
    assert part.status == 0, part.err
    assert 0 < len(json.loads(part.out)["cuts"]) < len(whole["cuts"])


def test_rank_lets_the_first_two_race_for_the_time_it_is_given(run, pictures, weights, other_weights, monkeypatch):
    given = []

    def watched(ranked, *_, clock, share, **__):
        given.append(([each.source for each in ranked], clock.limit, share))
        return ranked[::-1]

    monkeypatch.setattr(importlib.import_module("regraft.cli.rank"), "race", watched)
    both = ("--source", weights, "--arch", f"{weights}={TINY}")
    both += ("--source", other_weights, "--arch", f"{other_weights}=regraft.source.cifar_resnet:resnet20")
    run("rank", pictures, *both, "--json")
    assert not given
    raced = json.loads(run("rank", pictures, *both, "--time-limit", "2m", "--json").out)
    assert given == [([each["source"] for each in raced[::-1]], 120.0, 1.0)]
    refused = run("rank", pictures, *both, "--time-limit", "0s")
    assert refused.status == 2 and "10m" in refused.err
