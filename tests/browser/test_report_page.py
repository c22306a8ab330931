"""The report in a real browser, opened from disk."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from browser.conftest import console_errors, requested_urls
from browser.synthetic_summary import make_summary, with_fits
from riskmill.results import Summary
from riskmill_cli.figures import compact, interval

pytestmark = pytest.mark.browser

type OpenReport = Callable[[Summary], webdriver.Chrome]

MARKUP = '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def summary() -> Summary:
    return make_summary()


def column(page: webdriver.Chrome, number: int) -> list[str]:
    """The raw values of one column of the shown deals, as the page holds them."""
    return page.execute_script(
        "return [...document.querySelectorAll('#deal-table > tbody > tr:not(.detail)')].map((row) => "
        "row.children[arguments[0]].dataset.value ?? row.children[arguments[0]].textContent)",
        number,
    )


def click(page: webdriver.Chrome, selector: str) -> None:
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, selector))


def sort_by(page: webdriver.Chrome, title: str) -> None:
    page.find_element(By.XPATH, f"//table[@id='deal-table']//th/button[text()='{title}']").send_keys(Keys.ENTER)


def curve(page: webdriver.Chrome, title: str) -> str:
    """The drawn path of one curve of the EP chart."""
    return page.execute_script(
        "const chart = document.getElementById('ep-chart');"
        "const at = chart._fullData.filter((t) => t.visible).findIndex((t) => t.name === arguments[0]);"
        "return chart.querySelectorAll('.scatterlayer .trace')[at].querySelector('path.js-line').getAttribute('d')",
        title,
    )


def test_the_page_draws_its_charts_without_a_complaint_or_a_request(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    assert console_errors(page) == []
    assert [url for url in requested_urls(page) if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len(curve(page, "Gross")) > 500
    assert len(curve(page, "Net")) > 500
    assert len(page.find_elements(By.CSS_SELECTOR, "#deal-chart .bars .point path")) == 20
    assert len(page.find_elements(By.CSS_SELECTOR, "#unit-chart .bars .point path")) == 15
    if folder := os.environ.get("RISKMILL_SCREENSHOTS"):
        page.save_screenshot(Path(folder) / "report.png")


def test_the_first_page_of_deals_is_ordered_by_co_tvar_and_a_click_turns_it_around(
    open_report: OpenReport, summary: Summary
) -> None:
    page = open_report(summary)
    expected = sorted((deal.co_tvar or 0.0 for deal in summary.deals), reverse=True)
    assert [float(value) for value in column(page, 8)] == pytest.approx(expected[:50], rel=1e-6)
    sort_by(page, "co-TVaR")
    assert [float(value) for value in column(page, 8)] == pytest.approx(expected[:-51:-1], rel=1e-6)
    head = page.find_element(By.CSS_SELECTOR, "#deal-table th[aria-sort]")
    assert (head.get_attribute("aria-sort"), head.text) == ("ascending", "co-TVaR")


def test_deal_ids_sort_by_their_numbers(open_report: OpenReport, summary: Summary) -> None:
    renamed = tuple(deal.model_copy(update={"deal_id": f"D{i}"}) for i, deal in enumerate(summary.deals, start=1))
    page = open_report(summary.model_copy(update={"deals": renamed, "layers": ()}))
    sort_by(page, "Deal")
    assert column(page, 0)[:12] == [f"D{i}" for i in range(1, 13)]


def test_text_and_business_unit_filter_the_deals(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    page.find_element(By.ID, "deal-filter").send_keys("keystone")
    named = [deal for deal in summary.deals if "keystone" in deal.cedant.lower()]
    assert 0 < len(named) < 50
    assert sorted(column(page, 0)) == sorted(deal.deal_id for deal in named)
    assert page.find_element(By.ID, "deal-count").text == f"{len(named)} of 300 deals"

    Select(page.find_element(By.ID, "deal-unit")).select_by_visible_text("Midwest")
    both = [deal for deal in named if deal.business_unit == "Midwest"]
    assert sorted(column(page, 0)) == sorted(deal.deal_id for deal in both)

    page.find_element(By.ID, "deal-filter").send_keys(" no such deal")
    assert "No deal matches." in page.find_element(By.CSS_SELECTOR, "#deal-table tbody").text


def test_a_deal_opens_its_layers_by_keyboard(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    button = page.find_element(By.CSS_SELECTOR, "#deal-table .open")
    deal_id = button.text
    button.send_keys(Keys.ENTER)
    rows = page.find_elements(By.CSS_SELECTOR, "#deal-table tr.detail tbody tr")
    assert [row.find_elements(By.TAG_NAME, "td")[0].text for row in rows] == [
        layer.layer_id for layer in summary.layers if layer.deal_id == deal_id
    ]
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.find_elements(By.CSS_SELECTOR, "#deal-table tr.detail") == []


def test_the_basis_and_the_group_change_curve_and_table(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    occurrence, table = curve(page, "Gross"), page.find_element(By.ID, "ep-table").text
    click(page, "input[name=basis][value=aep]")
    annual = curve(page, "Gross")
    assert annual != occurrence
    assert "Gross AEP" in page.find_element(By.ID, "ep-table").text
    assert "Gross AEP" not in table
    Select(page.find_element(By.ID, "ep-group")).select_by_index(3)
    assert curve(page, "Gross") != annual
    assert console_errors(page) == []


def peril_table(page: webdriver.Chrome) -> list[list[str]]:
    """The figures of the perils' table without their small print, a row a peril."""
    return page.execute_script(
        "return [...document.querySelectorAll('#peril-table tbody tr')].map((row) => "
        "[...row.children].map((cell) => cell.firstChild.textContent))"
    )


def test_perils_have_their_curves_their_part_of_the_tail_and_their_errors(
    open_report: OpenReport, summary: Summary
) -> None:
    """The top group's gross view: every peril, the largest part of the tail first, as the summary has them."""
    page = open_report(summary)
    gross = summary.top("gross")
    assert gross is not None
    perils = sorted(gross.perils, key=lambda peril: -(peril.co_tvar or 0))
    assert [row[0] for row in peril_table(page)] == [peril.peril for peril in perils]
    first, row = perils[0], page.find_element(By.CSS_SELECTOR, "#peril-table tbody tr").text
    point = first.at(100)
    assert point is not None
    for text in (first.aal, first.sd, first.tvar, first.co_tvar, first.marginal_tvar, point.oep):
        assert compact(text) in row
    for error in (first.aal_se, first.sd_se, first.tvar_se, first.co_tvar_se, first.marginal_tvar_se):
        assert f"± {compact(error)}" in row
    assert interval(point.oep_low, point.oep_high) in row
    assert len(page.find_elements(By.CSS_SELECTOR, "#peril-chart .scatterlayer .trace path.js-line")) == len(perils)
    assert len(page.find_elements(By.CSS_SELECTOR, "#peril-chart .errorbar")) > 20
    assert len(page.find_elements(By.CSS_SELECTOR, "#peril-shares .bars .point path")) == 2 * len(perils)


def test_the_perils_follow_their_group_view_and_basis(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    before, title = peril_table(page), page.find_element(By.ID, "peril-title").text
    click(page, "input[name=peril-basis][value=aep]")
    assert "AEP 1 in 100" in page.find_element(By.ID, "peril-table").text
    assert page.find_element(By.ID, "peril-title").text != title
    Select(page.find_element(By.ID, "peril-view")).select_by_visible_text("Net")
    net = summary.top("net")
    assert net is not None
    shown = {row[0]: row[8] for row in peril_table(page)}
    assert shown == {peril.peril: compact(peril.co_tvar) for peril in net.perils}
    Select(page.find_element(By.ID, "peril-group")).select_by_index(2)
    assert len(peril_table(page)) < len(before)
    assert console_errors(page) == []


def test_a_run_without_perils_shows_no_section_of_them(open_report: OpenReport, summary: Summary) -> None:
    groups = tuple(group.model_copy(update={"perils": ()}) for group in summary.groups)
    page = open_report(summary.model_copy(update={"groups": groups}))
    assert not page.find_element(By.ID, "perils").is_displayed()
    assert console_errors(page) == []


def test_deals_and_layers_state_their_parts_of_the_tail_and_their_errors(
    open_report: OpenReport, summary: Summary
) -> None:
    page = open_report(summary)
    by_id = {deal.deal_id: deal for deal in summary.deals}
    for number, name in ((10, "net_co_tvar"), (11, "marginal_tvar")):
        sort_by(page, {10: "Net co-TVaR", 11: "Marginal TVaR"}[number])
        expected = sorted((getattr(deal, name) for deal in summary.deals), reverse=True)
        assert [float(value) for value in column(page, number)] == pytest.approx(expected[:50], rel=1e-6)
    row = page.find_element(By.CSS_SELECTOR, "#deal-table tbody tr")
    deal = by_id[row.get_attribute("data-deal")]
    for error in (deal.aal_se, deal.sd_se, deal.co_tvar_se, deal.net_co_tvar_se, deal.marginal_tvar_se):
        assert f"± {compact(error)}" in row.text
    row.find_element(By.CSS_SELECTOR, ".open").send_keys(Keys.ENTER)
    opened = page.find_element(By.CSS_SELECTOR, "#deal-table tr.detail").text
    layer = next(layer for layer in summary.layers if layer.deal_id == deal.deal_id)
    assert f"± {compact(layer.expected_loss_se)}" in opened
    assert f"± {compact(layer.technical_premium_se)}" in opened
    low, high = layer.prob_attach_low, layer.prob_attach_high
    assert low is not None
    assert high is not None
    assert f"{low * 100:.2f}–{high * 100:.2f}%" in opened


def test_on_paper_no_table_is_wider_than_the_page(open_report: OpenReport, summary: Summary) -> None:
    """A4 less its margins is 186 mm, 703 CSS pixels."""
    page = open_report(summary)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    metrics = {"width": 703, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        widths = page.execute_script(
            "return [...document.querySelectorAll('.scroll > table')].map((t) => [t.offsetWidth, innerWidth])"
        )
        assert len(widths) == 5
        assert all(table <= paper for table, paper in widths), widths
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_markup_in_names_is_shown_and_never_run(open_report: OpenReport, summary: Summary) -> None:
    hostile = json.loads(summary.to_json())
    hostile["portfolio"] |= {"name": f"</title>{MARKUP}", "description": MARKUP, "currency": "<b>"}
    hostile["deals"][0] |= {"deal_id": MARKUP, "cedant": MARKUP, "business_unit": MARKUP, "co_tvar": 1e12}
    hostile["layers"][0] |= {"layer_id": MARKUP, "deal_id": MARKUP}
    for group in hostile["groups"]:
        group["group_name"] = f"{MARKUP} {group['group_id']}"
        for peril in group["perils"]:
            peril["peril"] = f"{MARKUP} {peril['peril']}"
    hostile["errors"] = [{"key": "0" * 32, "model": MARKUP, "subject": MARKUP, "message": MARKUP}]
    page = open_report(Summary.model_validate(hostile))
    page.find_element(By.CSS_SELECTOR, "#deal-table .open").send_keys(Keys.ENTER)
    assert column(page, 0)[0] == MARKUP
    assert MARKUP in page.find_element(By.CSS_SELECTOR, ".detail").text
    assert MARKUP in page.find_element(By.TAG_NAME, "h1").text
    assert page.find_element(By.CSS_SELECTOR, "#peril-table tbody th").text.startswith(MARKUP)
    assert page.find_elements(By.CSS_SELECTOR, "body img") == []
    assert "<script>" in page.find_element(By.CSS_SELECTOR, "#deal-chart .yaxislayer-above").text
    assert page.execute_script("return typeof window.hacked") == "undefined"
    assert console_errors(page) == []


def test_seven_thousand_deals_sort_filter_and_page_in_a_blink(open_report: OpenReport) -> None:
    page = open_report(make_summary(deals=7_000, trials=1_000))
    assert page.find_element(By.ID, "page-label").text == "1–50 of 7,000"
    for action in (
        "document.querySelectorAll('#deal-table thead button')[5].click()",
        "document.getElementById('page-next').click()",
        "const f = document.getElementById('deal-filter'); f.value = 'harbor'; f.dispatchEvent(new Event('input'))",
    ):
        started = time.perf_counter()
        page.execute_script(f"{action}; document.body.offsetHeight")
        # far above what it takes (some 30 ms), for a machine that is busy with other things
        assert time.perf_counter() - started < 1.0


def test_nothing_is_wider_than_the_page_at_common_widths(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    for width in (1400, 1280, 800):
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        # the charts follow the window a moment later
        WebDriverWait(page, 10).until(
            lambda page: page.execute_script(
                "return [...document.querySelectorAll('.chart')].every((chart) =>"
                " Math.abs(chart.querySelector('.main-svg').clientWidth - chart.clientWidth) <= 1)"
            )
        )
        assert (
            page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            <= 0
        )
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_summary_without_results_still_makes_a_page(open_report: OpenReport, summary: Summary) -> None:
    failed = make_summary(deals=1, trials=1_000, failures=1).model_copy(
        update={"groups": (), "deals": (), "layers": (), "tvar": None}
    )
    page = open_report(failed)
    assert "1 failed job" in page.find_element(By.CSS_SELECTOR, ".failures").text
    assert console_errors(page) == []


def test_fits_stand_in_the_report_with_limits_and_what_is_refused(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(with_fits(summary))
    assert console_errors(page) == []
    tail = page.find_element(By.ID, "fitted-tail")
    assert len(tail.find_elements(By.CSS_SELECTOR, "svg.fit-chart")) == 4
    # A dot a perspective and threshold, none where there is no law.
    assert len(tail.find_elements(By.CSS_SELECTOR, "svg.fit-chart:first-of-type circle")) == 4 * 2 * 3 - 2
    assert "below -0.5" in tail.text
    for chart in tail.find_elements(By.CSS_SELECTOR, "svg.fit-chart"):
        box = chart.rect
        for mark in chart.find_elements(By.CSS_SELECTOR, "circle"):
            assert box["x"] <= mark.rect["x"] <= box["x"] + box["width"]
            assert box["y"] <= mark.rect["y"] <= box["y"] + box["height"]
    records = page.find_element(By.ID, "fits").text
    assert "generalised Pareto: refused, the mean is infinite; state a maximum." in records
    assert "lognormal *" in records
    assert MARKUP in records


def test_a_report_without_fits_has_no_such_sections(open_report: OpenReport, summary: Summary) -> None:
    page = open_report(summary)
    assert page.find_elements(By.CSS_SELECTOR, "#fitted-tail, #fits") == []
