"""Debian's Chromium, headless, driven over the DevTools protocol."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDED = "chromium and chromedriver are needed: apt-get install chromium chromium-driver"


@contextmanager
def browser() -> Iterator:
    """A driver that logs the console and every request; the test that asks for it is skipped where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(NEEDED)
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is needed: pip install '.[clients]'")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


def open_page(driver, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    """Open a local file at a viewport of `width` CSS pixels, as someone with a dark or light desktop sees it."""
    mobile = width < 600
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(file.absolute().as_uri())


def wait_for(driver, condition, seconds: float = 30):
    """What `condition(driver)` gives as soon as it is true; a failure after `seconds`."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds).until(condition)


def move_to(driver, element) -> None:
    """Bring the pointer from the window's corner to the middle of an element."""
    from selenium.webdriver.common.action_chains import ActionChains

    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(driver).move_by_offset(0, 0).move_to_element(element).perform()


def select(driver, selector: str, value: str) -> None:
    """Choose an entry of a list by its value."""
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("css selector", selector)).select_by_value(value)


def console_errors(driver) -> list[str]:
    """What the console said since the last call, warnings and errors."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(driver) -> list[str]:
    """URLs asked for since the last call, apart from data: and blob:, which leave nothing."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def screenshot(driver, file: Path) -> None:
    """The whole page as a PNG."""

    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    file.write_bytes(base64.b64decode(taken["data"]))
