"""The report as people open it: from a file, without a network, wide and narrow, light and dark."""

import re

import pytest
from report_inputs import write_bench, write_bundle, write_pareto, write_study

from anatomy_export.core.progress import Progress
from anatomy_export.jobs.report import ReportRequest, run_report
from clients.browser import console_errors, move_to, open_page, requests, select, wait_for

SIZES = pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    directories = (
        write_study(folder / "study-bert", width=512, probes=10),
        write_study(folder / "study-gpt2", rule="gpt2", partial=True, seed=3),
        write_pareto(folder / "pareto"),
        write_bench(folder / "bench"),
        write_bundle(folder / "bundle"),
    )
    run_report(ReportRequest(directories, folder / "report.html"), Progress())
    return folder / "report.html"


def opened(driver, page, **how):
    console_errors(driver), requests(driver)
    open_page(driver, page, **how)
    wait_for(driver, lambda one: one.execute_script("return document.documentElement.dataset.drawn"))
    return driver


def traces(driver) -> list[int]:
    """How many lines, marks, bars or cells each plot really shows."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.js-plotly-plot')].map(plot =>"
        " plot.querySelectorAll('.scatterlayer .trace, .barlayer .point, .heatmaplayer image').length)"
    )


@SIZES
def test_every_figure_is_drawn_fits_and_asks_for_nothing(chromium, page, width, dark):
    driver = opened(chromium, page, width=width, dark=dark)
    drawn = traces(driver)
    assert len(drawn) == driver.execute_script("return document.querySelectorAll('.plot').length") == 20
    assert min(drawn) > 0
    assert console_errors(driver) == []
    assert requests(driver) == [page.as_uri()]
    fits(driver, width)
    stands_out(driver)


def fits(driver, width: int) -> None:
    """Nothing is wider than the window, and no text is tiny."""
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = driver.execute_script(
        "return [...document.querySelectorAll('.card *')].filter(one => !one.closest('svg, .table')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.className)"
    )
    assert beyond == []
    small = driver.execute_script(
        "return [...document.querySelectorAll('svg text, p, td, h3')].filter(one => one.textContent.trim()"
        " && parseFloat(getComputedStyle(one).fontSize) < 10.5).map(one => one.textContent)"
    )
    assert small == []


def stands_out(driver) -> None:
    """Text is at least 4.5 times as light as its card, or as dark (WCAG 2.1, AA)."""
    card = driver.execute_script("return getComputedStyle(document.querySelector('.card')).backgroundColor")
    for selector, name in ((".summary", "color"), (".note", "color"), (".js-plotly-plot .xtick text", "fill")):
        text = driver.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).{name}")
        assert contrast(text, card) >= 4.5, (selector, text, card)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two CSS colours (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def plot_of(driver, heading: str, source: str):
    """The first plot under a heading, of one source."""
    return driver.execute_script(
        "return [...document.querySelectorAll('section')]"
        ".find(one => one.querySelector('h2').textContent === arguments[0])"
        ".querySelector(`[data-of='${arguments[1]}'] .plot`)",
        heading,
        source,
    )


def hovered(driver, plot, selector: str) -> str:
    """The text of the label at one mark."""
    mark = plot.find_elements("css selector", selector)[0]
    move_to(driver, mark)
    labels = "return [...arguments[0].querySelectorAll('.hoverlayer .hovertext')].map(one => one.textContent).join(' ')"
    return wait_for(driver, lambda one: one.execute_script(labels, plot))


def test_hover_names_the_neuron(chromium, page):
    driver = opened(chromium, page)
    label = hovered(driver, plot_of(driver, "Graph of strong neurons", "study-bert"), ".scatterlayer .points path")
    assert re.search(r"layer \d+, neuron \d+", label) and "similarity up to 0." in label
    label = hovered(driver, plot_of(driver, "Accuracy against neurons removed", "study-bert"), ".points path")
    assert "accuracy" in label and "removed" in label
    assert console_errors(driver) == []


def choose(driver, kind: str, value: str) -> None:
    select(driver, f"select[data-choice={kind}]", value)


def test_probes_and_layers_can_be_picked(chromium, page):
    driver = opened(chromium, page)
    lines = plot_of(driver, "Layer similarity, every probe", "study-bert")
    heat = plot_of(driver, "Strong neurons, overlap", "study-bert")
    graph = plot_of(driver, "Graph of strong neurons", "study-bert")
    before = (driver.execute_script("return arguments[0].data[0].z", heat), graph.text)
    assert len(lines.find_elements("css selector", ".scatterlayer .trace")) == 10
    choose(driver, "probe", "2")
    choose(driver, "layer", "4")
    assert [driver.execute_script("return arguments[0].data.map(one => one.name)", lines)] == [["probe 3"]]
    assert driver.execute_script("return arguments[0].data[0].z", heat) != before[0]
    layers = driver.execute_script("return [...new Set(arguments[0].data.flatMap(one => one.y))]", graph)
    assert {layer for layer in layers if layer is not None} == {3, 4, 5}
    rows = driver.find_elements("css selector", "[data-of='study-bert'] tr[data-choices]:not([hidden])")
    assert len(rows) == 1 and rows[0].text.startswith("4")
    graph = plot_of(driver, "Graph of strong neurons", "study-gpt2")
    assert "nothing strong here" in graph.text
    choose(driver, "probe", "8")  # the other study has six probes only: it shows all of them
    other = plot_of(driver, "Layer similarity, every probe", "study-gpt2")
    assert len(driver.execute_script("return arguments[0].data", other)) == 6
    assert console_errors(driver) == []


def test_sources_can_be_left_out(chromium, page):
    driver = opened(chromium, page)
    before = plot_of(driver, "Layer similarity", "study-bert").size["width"]
    for label in ("study-gpt2", "pareto"):
        driver.find_element("css selector", f"input[data-source='{label}']").click()
    shown = [one.text for one in driver.find_elements("css selector", "section h2") if one.is_displayed()]
    assert "Layer similarity" in shown and "Accuracy against speed" not in shown
    plot = plot_of(driver, "Layer similarity", "study-bert")
    drawn = driver.execute_script("return arguments[0].querySelector('.main-svg').getBoundingClientRect().width", plot)
    assert plot.size["width"] > 1.5 * before and abs(drawn - plot.size["width"]) < 2


def test_dark_and_light_follow_the_desktop(chromium, page):
    driver = opened(chromium, page)
    colour = "return getComputedStyle(document.querySelector('.xtick text')).fill"
    light = driver.execute_script(colour)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    wait_for(driver, lambda one: one.execute_script(colour) != light)
