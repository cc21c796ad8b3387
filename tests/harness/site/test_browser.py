"""Every page in a real browser: from disk, the network refused, wide and narrow, by mouse and key."""

import base64
import io
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import Browser, find_chromium
from bs4 import BeautifulSoup
from PIL import Image
from project import settings

from clipad_harness.site import page as site
from clipad_harness.site.explorer_data import read_explorer_data

PAGES = tuple(
    f"{name}.html"
    for name in (
        *("index", "explorer", "tables", "conflicts"),
        *settings()["essays"],
        *settings()["pages"],
    )
)
NO_SIDECAR = "net::ERR_FILE_NOT_FOUND"
# What reaches over the page's edge and is not cut off or made to scroll by something around it.
TOO_WIDE = """(() => {
  const clipped = (e) => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== "visible") return true; return false; };
  const edge = document.documentElement.clientWidth + 1;
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > edge && !clipped(e))
    .map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 5);
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    instance = Browser(program)
    yield instance
    instance.close()


@pytest.fixture
def reports(reproduced: Path) -> Path:
    return reproduced / "reports"


def settle(browser: Browser) -> None:
    """Until images are decoded and the explorer, where there is one, has drawn."""
    browser.wait(
        lambda: browser.run(
            "[...document.images].every((one) => one.complete || one.loading === 'lazy')"
        )
    )
    drawn = (
        "!document.getElementById('explorer') || document.getElementById('image-title').textContent"
    )
    browser.wait(lambda: browser.run(drawn))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_disk_without_a_word_of_complaint(
    browser: Browser, reports: Path, name: str
) -> None:
    browser.open(reports / name)
    settle(browser)
    assert browser.complaints() == []
    own = [(reports / file).resolve().as_uri() for file in (name, "run.js")]
    assert browser.requests() == own
    broken = "[...document.images].filter((one) => one.complete && !one.naturalWidth).length"
    assert browser.run(broken) == 0
    assert browser.run("document.images.length") > 0 or name in ("index.html", "tables.html")
    made_by = browser.run("document.querySelector('[data-run=page]').textContent")
    assert "made by" in made_by and "commit" in made_by


@pytest.mark.parametrize("name", PAGES)
def test_without_the_run_record_a_page_says_so_and_still_works(
    browser: Browser, reports: Path, tmp_path: Path, name: str
) -> None:
    browser.open(Path(shutil.copy(reports / name, tmp_path)))
    settle(browser)
    [complaint] = browser.complaints()
    assert NO_SIDECAR in complaint and complaint.endswith("/run.js")
    assert "It is not here" in browser.run("document.querySelector('[data-run=page]').textContent")
    assert browser.run("document.getElementById('theme').hidden") is False


def test_a_run_record_of_another_version_of_the_page_is_not_taken_for_this_one(
    browser: Browser, reports: Path, tmp_path: Path
) -> None:
    page = Path(shutil.copy(reports / "index.html", tmp_path))
    text = (reports / "run.js").read_text()
    (tmp_path / "run.js").write_text(text.replace('"page": "', '"page": "0'))
    browser.open(page)
    run_text = browser.run("document.querySelector('[data-run=page]').textContent")
    assert "tells of another version" in run_text and "made by" not in run_text


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [400, 1600])
def test_a_page_can_be_read_on_a_phone_and_on_a_wide_screen(
    browser: Browser, reports: Path, name: str, width: int
) -> None:
    browser.open(reports / name, width=width)
    settle(browser)
    assert browser.run(TOO_WIDE) == []
    assert (
        browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        == 0
    )
    smallest = """Math.min(...[...document.querySelectorAll("body *")].filter((one) =>
      [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
      && one.getClientRects().length).map((one) => parseFloat(getComputedStyle(one).fontSize)))"""
    assert browser.run(smallest) >= 10


def test_a_script_that_comes_with_data_does_not_run_and_ours_does(
    browser: Browser, tmp_path: Path
) -> None:
    body = "<svg onload='window.ran = 1'></svg><script>window.ran = 2</script>"
    output = tmp_path / "page.html"
    output.write_text(site.page("title", body, has_record=False, script="window.own = 3"))
    browser.open(output)
    assert browser.run("[window.ran || 0, window.own]") == [0, 3]
    assert browser.run("document.getElementById('theme').hidden") is False
    assert len(browser.complaints()) == 2


FIGURE = """<figure class="plot"><div class="picture"><img alt="a plot" width="864" src="{}"></div>
</figure>"""


def plotted(tmp_path: Path) -> Path:
    """A page with one figure of 1296 pixels that stands there at 864."""
    buffer = io.BytesIO()
    Image.new("RGB", (1296, 400), "red").save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    output = tmp_path / "page.html"
    output.write_text(site.page("title", FIGURE.format(source), has_record=False))
    return output


def test_a_figure_is_enlarged_by_a_click_or_a_key_and_closes_again(
    browser: Browser, tmp_path: Path
) -> None:
    browser.open(plotted(tmp_path), width=1000)
    is_open = "document.querySelector('dialog').open"
    shown = "document.querySelector('dialog img').getBoundingClientRect().width"
    browser.run("document.querySelector('.plot button').focus()")
    browser.press(" ", 32)
    assert browser.run(is_open) is True
    browser.press("Escape", 27)
    assert browser.run(is_open) is False
    browser.run("document.querySelector('.plot img').click()")
    assert browser.run(is_open) is True and browser.run(shown) >= 1296
    assert browser.run("document.querySelector('dialog img').alt") == "a plot"
    browser.run("document.querySelector('dialog img').click()")
    assert browser.run(is_open) is False
    assert browser.complaints() == []


def test_a_figure_keeps_its_size_on_a_phone_and_moves_sideways(
    browser: Browser, tmp_path: Path
) -> None:
    browser.open(plotted(tmp_path), width=400)
    assert browser.run("document.querySelector('.plot img').getBoundingClientRect().width") == 864
    assert browser.run(TOO_WIDE) == []
    assert browser.run("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("name", PAGES)
def test_every_head_of_a_table_leads_to_the_glossary(reports: Path, name: str) -> None:
    soup = BeautifulSoup((reports / name).read_text(encoding="utf-8"), "html.parser")
    tables = [table for table in soup.find_all("table") if table.thead is not None]
    assert [table.get_text()[:60] for table in tables if not table.find("a", class_="term")] == []
    assert bool(tables) is bool(soup.select("dl.glossary dd"))


@cache
def links_and_anchors(page: Path) -> tuple[set[str], set[str]]:
    """Where a page leads and where it can be led to; a page of megabytes is parsed once."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    links = {str(link["href"]) for link in soup.find_all("a", href=True)}
    return links, {str(tag["id"]) for tag in soup.find_all(id=True)}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_anchor_leads_somewhere(reports: Path, name: str) -> None:
    links, _ = links_and_anchors(reports / name)
    assert links
    for link in links:
        place, _, anchor = link.partition("#")
        if place.startswith("https://"):
            continue
        target = (reports / place) if place else reports / name
        # A link to the code leads out of the reports, into the project around them.
        assert target.resolve().is_relative_to(reports.parent.resolve()), link
        assert target.is_file(), link
        if anchor:
            assert unquote(anchor) in links_and_anchors(target)[1], link


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_finds_one_title_and_a_name_for_everything(
    browser: Browser, reports: Path, name: str
) -> None:
    browser.open(reports / name)
    settle(browser)
    assert browser.run("document.querySelectorAll('h1').length") == 1
    nameless = """[...document.querySelectorAll(
        "img, canvas, svg, button, input, select, [role=region]")]
      .filter((one) => one.checkVisibility() || one.tagName === "INPUT")
      .filter((one) => !(one.alt || one.getAttribute("aria-label") || one.textContent.trim()
        || [...(one.labels || [])].some(
          (label) => label.textContent.trim() || label.querySelector("img[alt]"))
        || one.closest("[aria-hidden=true]"))).map((one) => one.outerHTML.slice(0, 80))"""
    assert browser.run(nameless) == []
    ids = browser.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_a_headline_number_is_two_clicks_from_its_origin(browser: Browser, reports: Path) -> None:
    browser.open(reports / "index.html")
    browser.run("document.querySelector('#headline ~ .scroll .cell-ours a').click()")
    browser.wait(lambda: "winclip.html" in browser.run("location.href"))
    browser.wait(lambda: browser.run("document.readyState") == "complete")
    row = browser.run("document.querySelector(':target').textContent")
    assert (
        "0-shot" in row and "Apache-2.0" in row and "clipad_core/methods/winclip/detector.py" in row
    )
    browser.run("document.querySelector(':target a[href^=\"#keys\"]').click()")
    browser.wait(lambda: browser.run("document.querySelector('#keys-0-shot').open"))
    assert "hex_nut, seed 0" in browser.run("document.querySelector('#keys-0-shot').textContent")


def test_dark_and_light_can_be_switched_and_stay(browser: Browser, reports: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(reports / "index.html")
    before = browser.run(paper)
    browser.run("document.getElementById('theme').click()")
    after = browser.run(paper)
    assert before != after
    browser.open(reports / "index.html")
    assert browser.run(paper) == after
    browser.run("document.getElementById('theme').click()")


def test_bibtex_can_be_copied_or_is_selected(browser: Browser, reports: Path) -> None:
    browser.open(reports / "winclip.html")
    browser.run("document.querySelector('button.copy').click()")
    browser.wait(lambda: browser.run("document.querySelector('button.copy').textContent") != "Copy")
    button_text = browser.run("document.querySelector('button.copy').textContent")
    assert button_text == "Copied" or browser.run("String(getSelection())").startswith(
        "@inproceedings{winclip"
    )


PIXELS = """(() => { const canvas = document.querySelectorAll('#panels canvas')[%d];
  return canvas.toDataURL(); })()"""
FACTS = "document.querySelectorAll('#panels dl')[%d].innerText"


def test_the_slider_moves_the_segmentation_and_its_numbers(browser: Browser, reports: Path) -> None:
    record = read_explorer_data((reports / "explorer.html").read_text(encoding="utf-8"))
    image = next(image for image in record["categories"][0]["images"] if image["label"])
    method = image["methods"][0]
    browser.open(reports / "explorer.html", anchor=f"#{image['name']}")
    settle(browser)
    seen, last = set(), len(record["rates"]) - 1
    best = max(range(last), key=method["overlap"].__getitem__)
    for stop in (0, best, last):
        browser.run(
            f"(() => {{ const rate = document.getElementById('rate'); rate.value = {stop};"
            "rate.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
        seen.add(browser.run(PIXELS % 1))
        facts = browser.run(FACTS % 1)
        assert f"{method['overlap'][stop]:.3f}" in facts
        label = browser.run("document.querySelectorAll('#panels canvas')[1].ariaLabel")
        assert f"IoU {method['overlap'][stop]:.3f}" in label
    assert len(seen) == 3


def test_the_explorer_opens_on_the_image_in_the_middle(browser: Browser, reports: Path) -> None:
    record = read_explorer_data((reports / "explorer.html").read_text(encoding="utf-8"))
    browser.open(reports / "explorer.html")
    settle(browser)
    stop = browser.run("Number(document.getElementById('rate').value)")
    overlap_sums = {
        image["name"]: sum(method["overlap"][stop] for method in image["methods"])
        for category in record["categories"]
        for image in category["images"]
        if image["mask"]
    }
    middle = sorted(overlap_sums, key=overlap_sums.__getitem__)[len(overlap_sums) // 2]
    assert middle.split("/", 1)[1] in browser.run(
        "document.getElementById('image-title').textContent"
    )
    chosen = browser.run("Number(document.getElementById('category').value)")
    assert record["categories"][chosen]["name"] == middle.split("/", 1)[0]


def test_the_strip_shows_the_chosen_image(browser: Browser, reports: Path) -> None:
    record = read_explorer_data((reports / "explorer.html").read_text(encoding="utf-8"))
    last = record["categories"][0]["images"][-1]["name"]
    browser.open(reports / "explorer.html", anchor=f"#{last}", width=320)
    settle(browser)
    strip = "document.getElementById('images')"
    assert browser.run(f"{strip}.scrollWidth > {strip}.clientWidth"), "all fit: nothing is shown"
    inside = """(() => {
      const strip = document.getElementById("images").getBoundingClientRect();
      const chosen = document.querySelector("#images input:checked").parentElement.getBoundingClientRect();
      return chosen.left >= strip.left && chosen.right <= strip.right + 1; })()"""
    assert browser.run(inside)


def test_the_explorer_is_driven_by_keys_alone(browser: Browser, reports: Path) -> None:
    record = read_explorer_data((reports / "explorer.html").read_text(encoding="utf-8"))
    first = record["categories"][0]["images"][0]["name"]
    browser.open(reports / "explorer.html", anchor=f"#{first}")
    settle(browser)
    title = "document.getElementById('image-title').textContent"
    rate = "Number(document.getElementById('rate').value)"
    before, stop = browser.run(title), browser.run(rate)
    browser.run("document.getElementById('rate').focus()")
    browser.press("ArrowRight", 39)
    assert browser.run(rate) == stop + 1
    browser.run("document.querySelector('#images input:checked').focus()")
    browser.press("ArrowRight", 39)
    browser.wait(lambda: browser.run(title) != before)
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: '[', bubbles: true }))")
    browser.wait(lambda: browser.run(title) == before)
    assert browser.run("document.getElementById('summary').textContent").startswith("WinCLIP")


def test_an_address_leads_to_its_image_and_choices_narrow_the_strip(
    browser: Browser, reports: Path
) -> None:
    record = read_explorer_data((reports / "explorer.html").read_text(encoding="utf-8"))
    last = record["categories"][1]["images"][-1]
    browser.open(reports / "explorer.html", anchor=f"#{last['name']}")
    settle(browser)
    assert browser.run("document.getElementById('category').value") == "1"
    file = last["name"].rsplit("/", maxsplit=1)[-1]
    assert file in browser.run("document.getElementById('image-title').textContent")
    for kind, label in (("damaged", 1), ("normal", 0)):
        browser.run(
            f"(() => {{ const kind = document.getElementById('kind'); kind.value = '{kind}';"
            "kind.dispatchEvent(new Event('change')); })()"
        )
        counted = browser.run("document.querySelectorAll('#images label').length")
        assert counted == sum(
            image["label"] == label for image in record["categories"][1]["images"]
        )
    assert browser.complaints() == []


def test_switching_a_layer_off_takes_it_from_the_picture(browser: Browser, reports: Path) -> None:
    browser.open(reports / "explorer.html")
    settle(browser)
    seen = [browser.run(PIXELS % 1)]
    for name in ("show-heat", "show-marked", "show-mask"):
        browser.run(f"document.getElementById('{name}').click()")
        seen.append(browser.run(PIXELS % 1))
    assert len(set(seen[:2])) == 2
    assert seen[-1] == browser.run(PIXELS % 0), "with everything off the plain image is left"


def test_this_browser_sees_a_request_an_error_and_a_page_too_wide(
    browser: Browser, tmp_path: Path
) -> None:
    """Were it blind to them, the tests above could not fail."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><body><div style='width:3000px'>wide</div><img src='https://example.org/a.png'>"
        "<script>console.error('told'); nothing.here;</script>"
    )
    browser.open(page, width=400)
    assert "https://example.org/a.png" in browser.requests()
    complaints = " ".join(browser.complaints())
    assert (
        "told" in complaints and "nothing is not defined" in complaints and "net::ERR" in complaints
    )
    assert browser.run(TOO_WIDE) and browser.run("document.images[0].naturalWidth") == 0
