"""The page of `riskmill fit` in a real browser, opened from disk."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from typer.testing import CliRunner

from browser.conftest import console_errors, open_page, requested_urls
from riskmill_cli.main import app

pytestmark = pytest.mark.browser

RECORD = Path(__file__).parents[2] / "examples/us_nat_cat/us_billion_dollar_events.csv"
PERILS = ["Drought", "Flooding", "Freeze", "Severe Storm", "Tropical Cyclone", "Wildfire", "Winter Storm"]


def fitted(folder: Path, losses: Path, *options: str) -> Path:
    """Run the command on a file and return its page."""
    page = folder / "fit.html"
    result = CliRunner().invoke(app, ["fit", str(losses), *options, "--bootstrap", "40", "--out", str(page), "--json"])
    assert result.exit_code == 0, result.output
    return page


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> webdriver.Chrome:
    """The page of the example's record, by peril."""
    columns = ["--loss-column", "cost_usd_m_cpi_adjusted", "--date-column", "begin", "--by", "peril"]
    path = fitted(tmp_path_factory.mktemp("fit"), RECORD, *columns, "--threshold", "1000", "--years", "1980-2023")
    opened = open_page(browser, path)
    if folder := os.environ.get("RISKMILL_SCREENSHOTS"):
        opened.set_window_size(1400, 2400)
        opened.save_screenshot(str(Path(folder) / "fit.png"))
        opened.set_window_size(1400, 900)
    return opened


def traces(page: webdriver.Chrome, chart: str) -> list[dict[str, object]]:
    """What a chart drew: each trace's name, points, and how many of its marks are on the page."""
    return page.execute_script(
        "const chart = document.getElementById(arguments[0]);"
        "const drawn = [...chart.querySelectorAll('.scatterlayer .trace')];"
        "return chart._fullData.map((trace, at) => ({name: trace.name, x: [...trace.x], y: [...trace.y],"
        " dots: drawn[at].querySelectorAll('path.point').length,"
        " line: (drawn[at].querySelector('path.js-line') || {getAttribute: () => ''}).getAttribute('d')}))",
        chart,
    )


def test_the_page_draws_its_plots_without_a_complaint_or_a_request(page: webdriver.Chrome) -> None:
    assert console_errors(page) == []
    assert [url for url in requested_urls(page) if not url.startswith(("file:", "data:", "blob:"))] == []
    heads = [head.text.split(" ")[0] for head in page.find_elements(By.CSS_SELECTOR, "main h2")]
    assert heads == [*(name.split(" ")[0] for name in PERILS), "Notes"]
    # Nine freezes are too few for a severity, and so for plots.
    drawn = [chart.get_attribute("id") for chart in page.find_elements(By.CSS_SELECTOR, ".chart .main-svg:first-child")]
    assert len(page.find_elements(By.CSS_SELECTOR, ".chart")) == 18
    assert len(drawn) == 18


def test_exceedance_shows_every_loss_and_the_three_laws(page: webdriver.Chrome) -> None:
    losses, *laws = traces(page, f"exceedance-{PERILS.index('Tropical Cyclone')}")
    assert losses["dots"] == 62
    assert losses["x"] == sorted(losses["x"])
    assert losses["y"][-1] == pytest.approx(0.5 / 44)
    assert [law["name"] for law in laws] == ["generalised Pareto", "lognormal", "Pareto"]
    for law in laws:
        assert law["line"].startswith("M")
        assert law["y"] == sorted(law["y"], reverse=True)


@pytest.mark.parametrize("kind", ["exceedance", "qq", "excess"])
def test_marks_of_an_axis_do_not_run_into_each_other(page: webdriver.Chrome, kind: str) -> None:
    for at, peril in enumerate(PERILS):
        boxes = [mark.rect for mark in page.find_elements(By.CSS_SELECTOR, f"#{kind}-{at} .xtick text")]
        assert len(boxes) >= 2 or peril == "Freeze"
        boxes.sort(key=lambda box: box["x"])
        for left, right in pairwise(boxes):
            assert left["x"] + left["width"] < right["x"], (peril, kind)


def test_quantiles_of_a_law_that_fits_lie_about_the_line(page: webdriver.Chrome) -> None:
    equal, *laws = traces(page, f"qq-{PERILS.index('Flooding')}")
    assert equal["x"] == equal["y"]
    gpd = next(law for law in laws if law["name"] == "generalised Pareto")
    assert gpd["dots"] == 44
    assert all(0.5 < fitted / loss < 2 for fitted, loss in zip(gpd["x"], gpd["y"], strict=True))


def test_the_mean_excess_rises_for_a_heavy_peril(page: webdriver.Chrome) -> None:
    [excess] = traces(page, f"excess-{PERILS.index('Tropical Cyclone')}")
    assert excess["dots"] == 61
    assert excess["y"][40] > 2 * excess["y"][0]


def test_the_tables_have_intervals_and_say_what_is_refused(page: webdriver.Chrome) -> None:
    section = page.find_elements(By.CSS_SELECTOR, "main section")[PERILS.index("Tropical Cyclone")].text
    assert "shape 1.10" in section
    assert "refused" in section
    assert "generalised Pareto: refused, the mean is infinite; state a maximum" in section
    cells = page.find_elements(By.XPATH, "//th[starts-with(text(), 'negative binomial')]/following-sibling::td[1]")
    assert any("size" in cell.text and "to" in cell.text for cell in cells)


def test_the_plots_stay_within_a_narrow_page(page: webdriver.Chrome) -> None:
    try:
        page.set_window_size(600, 900)
        width = page.execute_script("return document.documentElement.clientWidth")
        for chart in page.find_elements(By.CSS_SELECTOR, ".chart"):
            box = chart.rect
            assert box["x"] + box["width"] <= width + 1
    finally:
        page.set_window_size(1400, 900)


def test_text_of_a_file_is_never_markup(browser: webdriver.Chrome, tmp_path: Path) -> None:
    markup = '<img src=x onerror="window.hacked=1">'
    losses = tmp_path / "losses.csv"
    losses.write_text("loss,kind\n" + "".join(f"{2 + at / 7},'{markup}'\n".replace('"', "") for at in range(12)))
    opened = open_page(browser, fitted(tmp_path, losses, "--by", "kind"))
    assert opened.execute_script("return window.hacked") is None
    assert "<img src=x" in opened.find_element(By.CSS_SELECTOR, "main h2").text
