"""The report's HTML, the terminal's summary, and how both write numbers."""

import base64
import gzip
import html
import io
import json
import re

import pytest
from rich.console import Console

from browser.synthetic_summary import make_summary, with_fits
from riskmill.results import Summary
from riskmill_cli.figures import compact, duration, interval, percent
from riskmill_cli.report import render_report
from riskmill_cli.terminal import print_summary


@pytest.fixture(scope="module")
def summary() -> Summary:
    return make_summary(deals=30, trials=2_000, failures=2)


def embedded(page: str) -> dict[str, object]:
    found = re.search(r'id="report-data">([^<]*)<', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (1_234.0, "1.23k"),
        (999_499.0, "999k"),
        (999_600.0, "1.00m"),
        (45_649_000.0, "45.6m"),
        (9_996_000.0, "10.0m"),
        (1_234_567_890.0, "1.23bn"),
        (1_234_567_890_000.0, "1,235bn"),
        (-2_500_000.0, "-2.50m"),
    ],
)
def test_amounts_have_three_significant_digits_and_a_suffix(value: float | None, text: str) -> None:
    assert compact(value) == text


def test_percentages_and_durations_read_as_people_write_them() -> None:
    assert [percent(0.1234), percent(None), percent(0.5, 0)] == ["12.3%", "–", "50%"]
    assert [duration(s) for s in (None, 0.84, 42.4, 59.7, 185, 3725)] == [
        "–",
        "0.8 s",
        "42 s",
        "1 min 00 s",
        "3 min 05 s",
        "1 h 02 min",
    ]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.62e9, 1.95e9, "1.62–1.95bn"),
        (940e6, 1.07e9, "940m–1.07bn"),
        (5.0, 7.0, "5–7"),
        (0.0, 3.2e6, "0–3.20m"),
        (None, 1.0, ""),
        (1.0, None, ""),
    ],
)
def test_limits_name_their_unit_once_where_it_is_the_same(low: float | None, high: float | None, text: str) -> None:
    assert interval(low, high) == text


def test_figures_have_their_errors_and_limits_in_the_html_itself(summary: Summary) -> None:
    """Headline, groups, and each group's part of the tail, gross, net and marginal."""
    page = render_report(summary)
    gross, net = summary.top("gross"), summary.top("net")
    assert gross is not None
    assert net is not None
    point = gross.at(100)
    assert point is not None
    assert f"± {percent(summary.gross_loss_ratio_se)} gross loss ratio" in page
    assert interval(point.oep_low, point.oep_high) in page
    for value in (gross.tvar_se, gross.aal_se, gross.co_tvar_se, gross.marginal_tvar_se, net.tvar_se, net.co_tvar_se):
        assert f"± {compact(value)}" in page
    tails = page[page.index('id="h-tails"') :]
    for group in summary.groups:
        assert group.group_name.replace("&", "&amp;") in tails
        if group.perspective == "gross":
            assert compact(group.marginal_tvar) in tails


@pytest.mark.parametrize(
    ("asked", "calc", "text"),
    [
        (None, 1, "off, as the portfolio says"),
        (True, 2, "on, as this run asked"),
        (False, 1, "off, as this run asked"),
    ],
)
def test_report_and_terminal_say_whether_losses_were_sampled_and_who_asked(
    summary: Summary, asked: bool | None, calc: int, text: str
) -> None:
    run = summary.run.model_copy(update={"secondary_uncertainty": asked})
    shown = summary.model_copy(update={"run": run, "ep_calc": calc})
    assert text in render_report(shown)
    out = io.StringIO()
    print_summary(shown, Console(file=out, width=160))
    assert f"secondary uncertainty {text.split(',')[0]}" in out.getvalue()


def test_report_and_terminal_say_how_many_jobs_ran_where_and_why(summary: Summary) -> None:
    why = {"lambda: fits with margin": 9, "fargate: longer than Lambda's 900 s with a margin of 5": 2}
    run = summary.run.model_copy(update={"compute": {"lambda": 9, "fargate": 2}, "why": why})
    shown = summary.model_copy(update={"run": run})
    out = io.StringIO()
    print_summary(shown, Console(file=out, width=160))
    for said in (out.getvalue(), html.unescape(render_report(shown))):
        assert "2 on fargate, 9 on lambda" in said
        assert "2 on fargate: longer than Lambda's 900 s with a margin of 5" in said


def test_a_narrow_terminal_shows_perils_figures_whole(summary: Summary) -> None:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=80))
    perils = out.getvalue().partition("Perils (gross)")[2].partition("Top ")[0]
    assert "AAL" in perils
    assert "…" not in perils


def test_the_same_summary_gives_the_same_bytes(summary: Summary) -> None:
    assert render_report(summary) == render_report(summary)


def test_the_page_refers_to_nothing_outside_itself(summary: Summary) -> None:
    page = render_report(summary)
    assert re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"|url\(|@import", page) == []
    assert "default-src 'none'" in page


def test_the_headline_and_the_failures_are_in_the_html_itself(summary: Summary) -> None:
    page = render_report(summary)
    gross = summary.top("gross")
    assert gross is not None
    for text in (compact(gross.aal), compact(gross.aal_se), compact(summary.tvar), percent(summary.gross_loss_ratio)):
        assert text in page
    assert "2 failed jobs" in page
    assert "negative mean loss" in page


def test_markup_in_text_is_escaped(summary: Summary) -> None:
    facts = summary.portfolio.model_copy(update={"name": "<script>alert(1)</script>", "description": "a & <b>"})
    page = render_report(summary.model_copy(update={"portfolio": facts}))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "a &amp; &lt;b&gt;" in page


def test_a_dollar_in_a_name_is_text(summary: Summary) -> None:
    facts = summary.portfolio.model_copy(update={"name": "$nonce ${css}"})
    assert "<h1>$nonce ${css}</h1>" in render_report(summary.model_copy(update={"portfolio": facts}))


def test_seven_thousand_deals_stay_under_six_megabytes() -> None:
    page = render_report(make_summary(deals=7_000, trials=500))
    assert len(page.encode()) < 6e6


def test_groups_stand_under_their_parents_and_shared_ones_once(summary: Summary) -> None:
    shared = tuple(
        group.model_copy(update={"parent_ids": ("OTHER", "WIND")}) if group.group_id == "BU1" else group
        for group in summary.groups
    )
    groups = embedded(render_report(summary.model_copy(update={"groups": shared})))["groups"]
    assert [(group["depth"], group["name"]) for group in groups] == [  # type: ignore[attr-defined]
        (0, "All business"),
        (1, "Convective, fire and nationwide"),
        (2, "California"),
        (2, "Florida & Gulf"),
        (2, "Midwest"),
        (2, "Nationwide"),
        (1, "Wind exposed"),
        (2, "Northeast"),
    ]


def test_the_band_meets_the_confidence_interval_at_a_tabulated_return_period(summary: Summary) -> None:
    bare = tuple(group.model_copy(update={"curve": type(group.curve)()}) for group in summary.groups)
    groups = embedded(render_report(summary.model_copy(update={"groups": bare})))["groups"]
    curve = groups[0]["views"]["gross"]["curve"]  # type: ignore[index]
    point = summary.top("gross").at(50)  # type: ignore[union-attr]
    at = curve["return_period"].index(50)
    assert point is not None
    assert curve["aep_low"][at] == pytest.approx(point.aep_low, rel=1e-5)
    assert curve["aep_high"][at] == pytest.approx(point.aep_high, rel=1e-5)


def test_the_terminal_names_groups_deals_and_failures(summary: Summary) -> None:
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        print_summary(summary, console)
    text = captured.get()
    top, net = summary.top("gross"), summary.top("net")
    largest = max(summary.deals, key=lambda deal: deal.co_tvar or 0.0)
    assert top is not None
    assert net is not None
    for figure in (top.aal, top.aal_se, net.aal, largest.co_tvar):
        assert compact(figure) in text
    assert largest.deal_id in text
    assert "negative mean loss" in text


def test_the_terminal_shows_the_top_groups_perils_the_largest_part_of_the_tail_first(summary: Summary) -> None:
    top = summary.top("gross")
    assert top is not None
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        print_summary(summary, console)
    lines = captured.get().splitlines()
    begin = next(at for at, line in enumerate(lines) if "Perils (gross)" in line)
    perils = sorted(top.perils, key=lambda peril: -(peril.co_tvar or 0))
    rows = [line for line in lines[begin:] if line.strip().startswith(tuple(peril.peril for peril in perils))]
    assert [row.split("  ")[1].strip() for row in rows] == [peril.peril for peril in perils]
    for row, peril in zip(rows, perils, strict=True):
        assert compact(peril.aal) in row
        assert compact(peril.co_tvar_se) in row
    bare = tuple(group.model_copy(update={"perils": ()}) for group in summary.groups)
    with console.capture() as captured:
        print_summary(summary.model_copy(update={"groups": bare}), console)
    assert "Perils" not in captured.get()


def test_square_brackets_in_names_are_not_the_terminals_markup(summary: Summary) -> None:
    deal = summary.deals[0].model_copy(update={"cedant": "[red]Cedant[/red]", "co_tvar": 1e12})
    facts = summary.portfolio.model_copy(update={"name": "[bold]Book[/bold]"})
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        print_summary(summary.model_copy(update={"deals": (deal,), "portfolio": facts}), console)
    assert "[red]Cedant[/red]" in captured.get()
    assert "[bold]Book[/bold]" in captured.get()


def test_fits_are_in_the_html_itself_and_their_text_is_never_markup(summary: Summary) -> None:
    page = render_report(with_fits(summary))
    assert 'id="fitted-tail"' in page
    assert page.count('<svg class="fit-chart"') == 4
    assert "1 in 1,000 years: Sum of a year (AEP)" in page
    # gross and net, at two of three thresholds of the OEP's and all of the AEP's
    assert page.count("<circle") == 2 * (5 + 6)
    assert '<span class="poor">0.04</span>' in page
    records = page[page.index('id="fits"') :]
    assert '22,000 <span class="interval">14,000 to ∞</span>' in records
    assert "shape 1.11 <span" in records
    assert "<script>window.hacked" not in records
    assert "&lt;script&gt;window.hacked" in records
    assert 'id="fitted-tail"' not in render_report(summary)


def test_a_refused_law_that_fits_better_says_so_in_the_report(summary: Summary) -> None:
    fitted = with_fits(summary)
    [record] = fitted.record_fits
    gpd, *rest = record.laws
    better = record.model_copy(update={"laws": (gpd.model_copy(update={"aic": 100.0}), *rest)})
    page = render_report(fitted.model_copy(update={"record_fits": (better,)}))
    sentence = "refused, the mean is infinite; state a maximum, though its AIC is lower than that of the law marked *."
    assert sentence in page
    assert sentence not in render_report(fitted)


@pytest.mark.parametrize(("width", "limits"), [(80, False), (160, True)])
def test_the_terminal_shows_fits_and_their_limits_where_there_is_room(
    summary: Summary, width: int, limits: bool
) -> None:
    out = io.StringIO()
    print_summary(with_fits(summary), Console(file=out, width=width, color_system=None))
    text = out.getvalue()
    assert "Fitted tail: the worst 1% of years" in text
    assert "Recorded losses" in text
    assert "refused" in text
    assert ("(1.08bn-1.44bn)" in text) == limits
    assert ("1.4 (1 to 1.9)" in text) == limits
