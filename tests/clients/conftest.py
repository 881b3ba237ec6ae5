"""Tests that need a program beside Python. What is missing is named at the end, never skipped in silence."""

import pytest

from clients.browser import browser


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
    for reason in dict.fromkeys(report.longrepr[-1] for report in skipped):
        count = sum(report.longrepr[-1] == reason for report in skipped)
        terminalreporter.write_line(f"{count} tests: {reason.removeprefix('Skipped: ')}", red=True)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, without a network; see `browser`."""
    with browser() as driver:
        yield driver
