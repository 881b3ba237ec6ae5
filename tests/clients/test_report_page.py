"""The report as people open it: from a file, without a network, wide and narrow, light and dark."""

import re

import pytest
from browser import console_errors, open_page, requests
from report_inputs import write_bench, write_bundle, write_pareto, write_study
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select, WebDriverWait

from anatomy_export.progress import Progress
from anatomy_export.report.job import ReportRequest, run_report

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
    WebDriverWait(driver, 30).until(lambda one: one.execute_script("return document.documentElement.dataset.drawn"))
    return driver


def traces(driver) -> list[int]:
    """How many lines, marks, bars or cells each plot really shows."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.js-plotly-plot')].map(plot =>"
        " plot.querySelectorAll('.scatterlayer .trace, .barlayer .point, .heatmaplayer image').length)"
    )


@SIZES
def test_every_figure_is_drawn_and_nothing_is_asked_for(chromium, page, width, dark):
    driver = opened(chromium, page, width=width, dark=dark)
    drawn = traces(driver)
    assert len(drawn) == driver.execute_script("return document.querySelectorAll('.plot').length") == 20
    assert min(drawn) > 0
    assert console_errors(driver) == []
    assert requests(driver) == [page.as_uri()]


@SIZES
def test_the_page_fits_its_window(chromium, page, width, dark):
    driver = opened(chromium, page, width=width, dark=dark)
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


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_card(chromium, page, dark):
    driver = opened(chromium, page, dark=dark)
    for selector, property_ in ((".summary", "color"), (".note", "color"), (".js-plotly-plot .xtick text", "fill")):
        text = driver.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).{property_}")
        card = driver.execute_script("return getComputedStyle(document.querySelector('.card')).backgroundColor")
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
        "return [...document.querySelectorAll('section')].find(one => one.querySelector('h2').textContent === arguments[0])"
        ".querySelector(`[data-of='${arguments[1]}'] .plot`)",
        heading,
        source,
    )


def hovered(driver, plot, selector: str) -> str:
    """The text of the label at one mark."""
    mark = plot.find_elements("css selector", selector)[0]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(driver).move_to_element_with_offset(plot, 0, 0).move_to_element(mark).perform()
    return WebDriverWait(driver, 10).until(
        lambda one: " ".join(text.text for text in plot.find_elements("css selector", ".hoverlayer .hovertext"))
    )


def test_hover_names_the_neuron(chromium, page):
    driver = opened(chromium, page)
    label = hovered(driver, plot_of(driver, "Graph of strong neurons", "study-bert"), ".scatterlayer .points path")
    assert re.search(r"layer \d+, neuron \d+", label) and "similarity up to 0." in label
    label = hovered(driver, plot_of(driver, "Accuracy against neurons removed", "study-bert"), ".points path")
    assert "accuracy" in label and "removed" in label
    assert console_errors(driver) == []


def choose(driver, kind: str, value: str) -> None:
    Select(driver.find_element("css selector", f"select[data-choice={kind}]")).select_by_value(value)


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
    WebDriverWait(driver, 10).until(lambda one: one.execute_script(colour) != light)
