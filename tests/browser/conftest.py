"""A headless Chromium that opens rendered reports from disk."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from riskmill.results import Summary
from riskmill_cli.report import render_report

type OpenReport = Callable[[Summary], webdriver.Chrome]

_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1400,900",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with its chromedriver on PATH")
    options = Options()
    options.binary_location = chromium
    for switch in (*_SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def open_report(browser: webdriver.Chrome, tmp_path: Path) -> OpenReport:
    """Render a summary, open it as a file, and wait until the page has drawn everything."""

    def open_(summary: Summary) -> webdriver.Chrome:
        path = tmp_path / "report.html"
        path.write_text(render_report(summary), encoding="utf-8")
        return open_page(browser, path)

    return open_


def open_page(browser: webdriver.Chrome, path: Path) -> webdriver.Chrome:
    """Open a page as a file, and wait until it has drawn everything."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    WebDriverWait(browser, 30).until(
        lambda page: page.execute_script("return document.documentElement.dataset.ready") == "true"
    )
    return browser


def requested_urls(browser: webdriver.Chrome) -> list[str]:
    """Every address that the page asked for since it was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def console_errors(browser: webdriver.Chrome) -> list[str]:
    """What the page complained of on its console since it was opened."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
