"""The report in a real browser: nothing comes from outside, everything is drawn, and everyone can read it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from devtools import Browser, find
from folders import write_proof, write_run

from regraft.evidence import render
from regraft.evidence.compare import compare

SIZES = pytest.mark.parametrize(("width", "dark"), [(380, False), (380, True), (1400, False), (1400, True)])

# Elements in sight that stick out of the page, or out of the figure they are drawn in.
STICKING_OUT = """(() => {
  const edge = document.documentElement.clientWidth + 1, out = [];
  for (const e of document.querySelectorAll('main *, header *, nav *, footer *')) {
    const box = e.getBoundingClientRect(), frame = e.closest('figure')?.getBoundingClientRect();
    if (!box.width || e.closest('.skip')) continue;
    const right = frame && e.closest('svg') ? Math.min(edge, frame.right) : edge;
    if (box.right <= right || (e.closest('.scroll') && e.tagName != 'CAPTION')) continue;
    out.push([e.tagName, e.textContent.slice(0, 40), box.right, right]);
  }
  return out;
})()"""

# Pictures, and how large each one in sight is drawn.
DRAWN = """[...document.querySelectorAll('img, svg')].map(e => {
  const box = e.getBoundingClientRect();
  return {kind: e.tagName, width: box.width, height: box.height, loaded: e.tagName != 'IMG' ||
          (e.complete && e.naturalWidth > 0), marks: e.querySelectorAll('path').length, hidden: !e.checkVisibility()};
})"""

LUMINANCE = """(colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255).map(
  v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; })"""
GROUND_AND_INK = f"['backgroundColor', 'color'].map(k => {LUMINANCE}(getComputedStyle(document.body)[k]))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find()
    if path is None:
        pytest.skip("no Chromium on this machine to open the page in")
    browser = Browser(path, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with everything that a full measurement leaves."""
    run = write_run(tmp_path_factory.mktemp("browser") / "run")
    write_proof(run)
    return render(run).as_uri()


@SIZES
def test_it_opens_without_a_network_and_without_a_complaint(browser: Browser, page: str, width: int, dark: bool):
    browser.open(page, width, dark=dark)
    addresses = [request["request"]["url"] for request in browser.of("Network.requestWillBeSent")]
    assert addresses[0] == page
    assert [url for url in addresses[1:] if not url.startswith("data:")] == []
    assert browser.of("Network.loadingFailed", "Log.entryAdded", "Runtime.exceptionThrown") == []
    assert browser.of("Runtime.consoleAPICalled") == []


def test_the_browser_would_have_told(browser: Browser, tmp_path: Path):
    """The test above can fail: a page that fetches and throws is told apart."""
    (tmp_path / "bad.html").write_text('<img src="https://example.org/a.png"><script>throw Error("no")</script>')
    browser.open((tmp_path / "bad.html").as_uri())
    assert any("example.org" in r["request"]["url"] for r in browser.of("Network.requestWillBeSent"))
    assert browser.of("Network.loadingFailed") and browser.of("Runtime.exceptionThrown")


@SIZES
def test_every_picture_is_drawn(browser: Browser, page: str, width: int, dark: bool):
    browser.open(page, width, dark=dark)
    pictures = browser.ask(DRAWN)
    shown = [picture for picture in pictures if not picture["hidden"]]
    plots = [picture for picture in shown if picture["kind"] == "svg"]
    assert len(plots) == 7 == sum(picture["kind"] == "svg" for picture in pictures) / 2
    for plot in plots:
        assert plot["width"] > (280 if width == 380 else 700) and plot["height"] > 100 and plot["marks"] > 5
    photos = [picture for picture in shown if picture["kind"] == "IMG"]
    assert len(photos) > 10
    assert all(photo["loaded"] and photo["width"] > 60 and photo["height"] > 30 for photo in photos)


@SIZES
def test_nothing_runs_over_an_edge(browser: Browser, page: str, width: int, dark: bool):
    browser.open(page, width, dark=dark)
    assert browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert browser.ask(STICKING_OUT) == []


def test_long_names_of_trainings_stay_in_their_picture(browser: Browser, tmp_path: Path):
    run = write_run(tmp_path / "run")
    text = (run / "curves.csv").read_text()
    for i, name in enumerate(("layer2.2", "from scratch")):
        long = f"lda on blocks.{i}.with_a_long_name@2 trained above blocks.{i} at 0.0003 short {i}"
        text = text.replace(f",{name}\n", f",{long}\n").replace(f",{name}\r\n", f",{long}\r\n")
    (run / "curves.csv").write_text(text)
    browser.open(render(run).as_uri(), 380)
    assert browser.ask(STICKING_OUT) == []
    words = browser.ask("[...document.querySelectorAll('#training .narrow text')].map(e => e.textContent).join(' ')")
    assert "short 0" in words and "short 1" in words


@pytest.mark.parametrize(("width", "lines"), [(380, 4), (1400, 2)])
def test_two_classes_leave_their_matrix_a_caption_that_can_be_read(
    browser: Browser, tmp_path: Path, width: int, lines: int
):
    run = write_run(tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps(data | {"classes": ["0", "1"]}))
    head, *rows = (run / "predictions.csv").read_text().splitlines()
    kept = [row for row in rows if {row.split(",")[2], row.split(",")[3]} <= {"0", "1"}]
    (run / "predictions.csv").write_text("\n".join([head, *kept]) + "\n")
    browser.open(render(run).as_uri(), width)
    caption = "document.querySelector('.matrix caption')"
    height = browser.ask(f"{caption}.clientHeight / parseFloat(getComputedStyle({caption}).lineHeight)")
    assert height < lines + 1 and browser.ask(STICKING_OUT) == []


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_what_the_reader_asked_for(browser: Browser, page: str, dark: bool):
    browser.open(page, dark=dark)
    ground, ink = browser.ask(GROUND_AND_INK)
    assert (ground < 0.02 and ink > 0.7) if dark else (ground > 0.8 and ink < 0.05)


def test_the_keyboard_comes_to_everything_in_order(browser: Browser, page: str):
    browser.open(page, 380)
    browser.ask("window.seen = []")
    stops = []
    for _ in range(60):
        browser.press("Tab")
        stop = browser.ask(
            "(() => { const e = document.activeElement; seen.push(e); return {tag: e.tagName, text: e.textContent,"
            " width: parseFloat(getComputedStyle(e).outlineWidth), name: e.getAttribute('aria-label')}; })()"
        )
        if stop["tag"] == "BODY":
            break
        stops.append(stop)
    assert stops[0]["text"] == "Skip to the report"
    assert all(stop["width"] >= 2 for stop in stops)  # one sees where one is
    assert browser.ask(
        "seen.slice(1, -1).every((e, i) => seen[i].compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING)"
    )
    wide = browser.ask(
        "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth)"
        ".map(e => e.getAttribute('aria-label'))"
    )
    assert len(wide) > 2 and set(wide) <= {stop["name"] for stop in stops}
    assert sum(stop["tag"] == "SUMMARY" for stop in stops) == browser.ask("document.querySelectorAll('summary').length")


def test_the_skip_link_skips(browser: Browser, page: str):
    browser.open(page)
    browser.press("Tab")
    browser.press("Enter")
    browser.press("Tab")
    assert browser.ask("document.querySelector('main').contains(document.activeElement)")


def test_a_screen_reader_hears_headings_pictures_and_tables(browser: Browser, page: str):
    browser.open(page)
    nodes = [n for n in browser("Accessibility.getFullAXTree")["nodes"] if not n.get("ignored")]

    def of(*roles: str) -> list[dict]:
        return [node for node in nodes if node["role"]["value"] in roles]

    levels = [next(p["value"]["value"] for p in node["properties"] if p["name"] == "level") for node in of("heading")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for node in of("image", "img", "table", "region", "navigation"):
        assert node["name"]["value"].strip(), node
    assert len(of("table")) >= 8 and len(of("image", "img")) >= 15
    assert {node["role"]["value"] for node in nodes} >= {"banner", "navigation", "main", "contentinfo", "columnheader"}


@pytest.mark.parametrize("dark", [False, True])
def test_it_prints_dark_on_white(browser: Browser, page: str, dark: bool):
    browser.open(page, dark=dark)
    browser.see(dark=dark, media="print")
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    ground, ink = browser.ask(GROUND_AND_INK)
    browser.see(dark=dark)
    assert ground == 1 and ink < 0.05
    paper = base64.b64decode(browser("Page.printToPDF", printBackground=True)["data"])
    assert paper.startswith(b"%PDF") and len(paper) > 20_000


@pytest.mark.parametrize("width", [380, 1400])
def test_runs_side_by_side_can_be_read_too(browser: Browser, width: int, tmp_path: Path):
    runs = [write_run(tmp_path / name, seed) for seed, name in enumerate(("one", "a-rather-long-name-of-a-run"))]
    browser.open(compare(runs, tmp_path / "both.html").as_uri(), width)
    assert browser.ask(STICKING_OUT) == []
    assert browser.of("Network.loadingFailed", "Log.entryAdded", "Runtime.exceptionThrown") == []
    assert sum(not picture["hidden"] for picture in browser.ask(DRAWN)) == 1
    right = "[...document.querySelectorAll('th')].find(e => e.textContent == 'Gain').getBoundingClientRect().right"
    assert width < 1000 or browser.ask(f"{right} < document.querySelector('.scroll').getBoundingClientRect().right")
