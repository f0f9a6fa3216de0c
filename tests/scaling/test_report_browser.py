"""The report's page in a real browser: every control works, nothing is cut off, axe finds nothing.

Needs Playwright's Python package and a Chromium of this machine (the extra ``browser``). With
HYBRIDBATCH_SCREENSHOTS=FOLDER the pictures are kept there.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from hybridbatch.scaling.report.report import report
from hybridbatch.scaling.sweep import run_sweep
from tests.helpers import synthetic

pytestmark = [
    pytest.mark.slow,
    pytest.mark.package("playwright"),
    pytest.mark.package("axe_playwright_python"),
]
WIDTHS = (1280, 390)
STUDY = Path(__file__).parents[2] / "experiments" / "study" / "grid" / "report" / "index.html"
CLICK_ALL = """table => [...table.querySelectorAll("thead button")].flatMap(button => [1, 2].map(() => {
  button.click();
  const sorted = [...table.querySelectorAll('th[aria-sort]')];
  return sorted.length === 1 && sorted[0].contains(button) ? sorted[0].ariaSort : 'wrong';
}))"""
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module", params=["made-up", "study"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a made-up sweep, and the page of the first study."""
    if request.param == "study":
        if not STUDY.is_file():
            pytest.skip("the study is not in this distribution")
        return STUDY
    out = tmp_path_factory.mktemp("browser") / "sweep"
    config = synthetic.sweep_config(
        out=out, pairs="100,200,400,800,1600", mix="0,0.25,0.5,0.75,1", allow_seen="true",
        languages="eng,deu,fin,swh,yor,hin",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridbatch.scaling.findings.LAW_RESAMPLES", 40)
        swept = run_sweep(config, runner=synthetic.run, facts=synthetic.facts())
        return report(swept)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console", lambda told: errors.append(told.text) if told.type == "error" else None
    )
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready]", timeout=20_000)
    yield opened
    opened.close()
    assert errors == []


def test_the_answer_comes_first_and_fits(page: Any) -> None:
    headline = page.locator(".headline table").first
    figures = page.locator("main > figure")
    assert headline.bounding_box()["y"] < figures.nth(0).bounding_box()["y"]
    assert (
        figures.nth(1).bounding_box()["y"]
        < page.locator("details.answer").nth(0).bounding_box()["y"]
    )
    assert headline.locator("th[scope=col]").count() >= 3
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    keep = os.environ.get("HYBRIDBATCH_SCREENSHOTS")
    if keep:
        name = "study" if "study" in page.url else "report"
        place = Path(keep, f"{name}-{page.viewport_size['width']}.png")
        page.screenshot(path=place, clip=None, full_page=True)


def test_every_control_of_the_figures_does_something(page: Any) -> None:
    for menu in page.locator("select:visible").all():
        box = menu.locator("xpath=ancestor::figure")
        for value in menu.locator("option").evaluate_all("all => all.map(each => each.value)"):
            if menu.is_visible() and menu.locator(f'option[value="{value}"]').count():
                menu.select_option(value)
                assert box.locator("svg .dot, .heat td").count()
    for figure in page.locator("figure:has(.legend button)").all():
        before = figure.locator("svg .dot").count()
        figure.locator(".legend button").first.click()
        assert figure.locator(".legend button").first.get_attribute("aria-pressed") == "false"
        assert figure.locator("svg .dot").count() < before
        figure.locator(".legend button").first.click()
        assert figure.locator("svg .dot").count() == before
        figure.locator("svg .dot").first.focus()
        assert figure.locator(".tip a").count()


def test_every_control_of_the_tables_does_something(page: Any) -> None:
    assert page.locator("[data-table]").count()
    for table in page.locator("[data-table]").all():
        table.locator("summary").click()
        rows = table.locator("tbody tr")
        buttons = table.locator("thead button")
        # real clicks at both ends; the script clicks those between, which a mouse takes minutes for
        for place in {0, buttons.count() - 1}:
            buttons.nth(place).click()
            assert table.locator("th[aria-sort=ascending]").count() == 1
            buttons.nth(place).click()
            assert table.locator("th[aria-sort=descending]").count() == 1
        assert table.evaluate(CLICK_ALL) == ["ascending", "descending"] * buttons.count()
        shown = rows.count()
        box = table.locator("input[type=checkbox]")
        if box.count():
            box.check()
            assert rows.count() > shown
        table.locator("input[type=search]").fill("no row has these words")
        assert rows.count() == 0
        table.locator("input[type=search]").fill("")
        assert rows.count() >= shown
        table.locator("summary").click()
        assert not table.locator("thead").is_visible()


def test_folded_parts_open_and_links_lead_somewhere(page: Any) -> None:
    for fold in page.locator("details:not([data-table])").all():
        fold.locator("summary").click()
        assert fold.locator(":scope > :not(summary)").first.is_visible()
        fold.locator("summary").click()
    for link in page.locator("nav a").all():
        link.click()
        assert page.locator(link.get_attribute("href")).count() == 1
    folder = Path(unquote(urlsplit(page.url).path)).parent
    ways = page.locator("a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    inside = {unquote(way) for way in ways if not way.startswith(("#", "http"))}
    assert inside
    assert [way for way in sorted(inside) if not (folder / way).exists()] == []


def test_points_of_several_series_do_not_hide_each_other(page: Any) -> None:
    places = (
        page.locator("figure")
        .first.locator("svg")
        .first.locator(".dot")
        .evaluate_all(
            "all => all.map(each => { const b = each.getBoundingClientRect();"
            " return [Math.round(b.x + b.width / 2), Math.round(b.y + b.height / 2)].join(); })"
        )
    )
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(page: Any, scheme: str) -> None:
    from axe_playwright_python import sync_playwright as axe

    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    found = axe.Axe().run(page)
    told = [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found.response["violations"]
    ]
    assert told == []
