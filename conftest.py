"""Runs the examples in the docs, the README and the docstrings."""

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

pytest_collect_file = (
    Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["docs/*.md", "README.md"])
    + Sybil(parsers=[DocTestParser()], patterns=["*.py"], path="src")
).pytest()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test and each example has a cache folder of its own."""
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
