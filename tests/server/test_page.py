"""The demo's page in a real browser, at phone and desk width."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models.sampling.sampler import SamplingConfig
from tests.support.narrowing import required
from tests.support.servers import serving

Browser = Callable[[int, int], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def chromium(width: int, height: int) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_experimental_option(
        "mobileEmulation", {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as window:
        window.implicitly_wait(10)
        yield window


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A window of a size, as a new one: of each size one is started, and what it has kept of a page is removed."""
    with contextlib.ExitStack() as stack:
        started = functools.cache(lambda width, height: stack.enter_context(chromium(width, height)))

        @contextlib.contextmanager
        def borrowed(width: int, height: int) -> Iterator[Any]:
            window = started(width, height)
            try:
                yield window
            finally:
                window.get(urllib.parse.urljoin(window.current_url, "/healthz"))  # the page may write as it is left
                window.execute_script("localStorage.clear(); sessionStorage.clear()")
                window.get("about:blank")
                window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
                window.get_log("browser")

        yield borrowed


SIZES = pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)], ids=["phone", "desk"])


@SIZES
def test_a_browser_draws_images_by_keyboard(browser, client, width, height):
    with browser(width, height) as window:
        window.get(str(client.base_url))
        text = window.switch_to.active_element  # the field has the focus at once
        text.send_keys("a red cat in the snow")
        slider = window.find_element("id", "count")
        slider.send_keys("\ue012")  # arrow left: 4 to 3
        assert window.find_element("id", "count-shown").text == "3"
        text.send_keys("\ue007")  # enter
        images = wait_for(lambda: window.find_elements("css selector", "figure[aria-busy=false] img"), 3)
        widths = wait_for(lambda: [p for p in images if int(p.get_property("naturalWidth")) == 64], 3)
        assert [image.get_attribute("alt") for image in widths] == ["a red cat in the snow"] * 3
        assert re.match(r"3 pictures in [\d.]+ s,\s+seed \d+", window.find_element("id", "status").text)
        saves = window.find_elements("css selector", "figcaption a[download]")
        assert re.fullmatch(r"a-red-cat-in-the-snow-\d+-0\.png", saves[0].get_attribute("download"))
        assert window.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        history = wait_for(lambda: window.find_elements("css selector", "#history button"), 1)
        before = shown(window)
        history[0].click()  # draws the same again
        again = wait_for(lambda: [url for url in shown(window) if url not in before], 3)
        assert client.get(again[0]).content == client.get(before[0]).content
        assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_prompts_of_the_model_are_buttons(browser, generator):
    prompts = ("a red cat", "a blue boat")
    sampling = SamplingConfig(top_k=9)
    with serving(generator._replace(prompts=prompts, sampling=sampling)) as client, browser(390, 844) as window:
        window.get(str(client.base_url))
        buttons = wait_for(lambda: window.find_elements("css selector", "#prompts button"), 2)
        text = window.find_element("id", "text")
        assert [button.text for button in buttons] == list(prompts)
        assert text.get_attribute("placeholder") == "a red cat"
        assert window.find_element("id", "top-k").get_attribute("placeholder") == "9"
        buttons[1].click()
        assert text.get_property("value") == "a blue boat" and window.switch_to.active_element == text
        assert window.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_refused_value_in_closed_settings_is_shown(browser, client):
    with browser(390, 844) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat")
        window.execute_script("document.getElementById('top-p').value = 2")
        assert not window.find_element("id", "top-p").is_displayed()
        window.find_element("id", "text").send_keys("\ue007")
        field = window.switch_to.active_element
        assert field.get_attribute("id") == "top-p" and field.is_displayed()
        assert field.get_property("validationMessage")
        field.clear()
        field.send_keys("0.9\ue007")
        wait_for(lambda: shown(window), 4)


@SIZES
def test_a_reload_goes_on_with_the_running_job(browser, generator, gate, width, height):
    with serving(generator) as client, browser(width, height) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat\ue007")
        assert window.find_element("css selector", "figure img[src^='data:image/jpeg']")
        window.refresh()
        assert window.find_element("css selector", "figure img[src^='data:image/jpeg']")
        assert window.find_element("id", "cancel").is_displayed()
        assert window.find_element("id", "text").get_property("value") == "a red cat"
        gate.set()
        wait_for(lambda: shown(window), 4)
        wait_for(lambda: window.find_elements("css selector", "#history button"), 1)
        window.refresh()  # finished: nothing to go on with
        wait_for(lambda: window.find_elements("css selector", "#history button"), 1)
        assert window.find_element("id", "generate").is_displayed() and shown(window) == []


def test_a_job_is_cancelled_after_a_reload(browser, generator, gate):
    with serving(generator) as client, browser(390, 844) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat\ue007")
        assert window.find_element("css selector", "figure")
        window.refresh()
        assert window.find_element("css selector", "figure")
        window.find_element("tag name", "body").send_keys("\ue00c")  # escape
        wait_for(lambda: "x" * window.find_element("id", "status").text.startswith("Cancelled"), 1)


def test_docs_show_the_interface_without_a_network(browser, client):
    with browser(1280, 900) as window:
        window.get(f"{client.base_url}/docs")
        wait_for(lambda: window.find_elements("css selector", "[data-path='/v1/images']"), 1)
        loaded = window.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(url.startswith((str(client.base_url), "data:")) for url in loaded)
        assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []


@SIZES
def test_a_dark_page_can_be_read(browser, generator, width, height):
    with serving(generator._replace(prompts=("a red cat",))) as client, browser(width, height) as window:
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        window.get(str(client.base_url))
        wait_for(lambda: window.find_elements("css selector", "#prompts button"), 1)
        assert luminance(colour(window, "body", "background-color")) < 0.05
        texts = {"h1": "body", "header p": "body", "#text": "#text", "summary": "form", "#generate": "#generate"}
        for text, ground in {**texts, "#prompts button": "#prompts button", "#model": "body"}.items():
            levels = luminance(colour(window, text, "color")), luminance(colour(window, ground, "background-color"))
            assert (max(levels) + 0.05) / (min(levels) + 0.05) >= 4.5, text  # WCAG 2.1, level AA
        assert window.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def colour(window, selector: str, name: str) -> list[int]:
    """Red, green and blue of a computed colour, 0 to 255."""
    value = window.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])", selector, name
    )
    return [int(number) for number in required(re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", value)).groups()]


def luminance(rgb: list[int]) -> float:
    """WCAG's relative luminance, 0 to 1."""
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@SIZES
def test_everything_is_reached_by_keyboard(browser, generator, width, height):
    with serving(generator._replace(prompts=("a red cat", "a blue boat"))) as client, browser(width, height) as window:
        window.get(str(client.base_url))
        wait_for(lambda: window.find_elements("css selector", "#prompts button"), 2)
        press(window, "\ue004", "\ue004", "\ue004", "\ue007")  # tab over Generate to the second prompt, enter
        assert window.switch_to.active_element.get_property("value") == "a blue boat"
        press(window, "\ue007")
        wait_for(lambda: shown(window), 4)
        for _ in range(30):
            if window.switch_to.active_element.get_attribute("class") == "frame":
                break
            press(window, "\ue004")
        assert window.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        press(window, "\ue007")  # enlarges the image
        assert window.find_element("id", "large").get_property("open")
        press(window, "\ue00c")
        assert not window.find_element("id", "large").get_property("open")
        assert window.switch_to.active_element.get_attribute("class") == "frame"


def press(window, *keys: str) -> None:
    """Sends keys to whatever has the focus."""
    for key in keys:
        window.switch_to.active_element.send_keys(key)


@SIZES
def test_an_error_is_shown_and_the_next_request_works(browser, generator, gate, width, height):
    with serving(generator, max_images=4, max_waiting=4) as client, browser(width, height) as window:
        drawing = client.post("/v1/images", json={"text": "a cat", "num_images": 4}).json()
        while client.get(f"/v1/images/{drawing['id']}").json()["status"] == "queued":
            time.sleep(0.01)
        client.post("/v1/images", json={"text": "a cat", "num_images": 4})
        window.get(str(client.base_url))
        text = window.find_element("id", "text")
        text.send_keys("a red cat\ue007")
        error = window.find_element("id", "error")
        wait_for(lambda: "x" * error.text.startswith("Too many are drawing just now: try again in"), 1)
        assert error.get_attribute("role") == "alert" and window.find_element("id", "generate").is_displayed()
        assert window.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        gate.set()
        wait_for(lambda: "x" * ("pairmill_waiting_pictures 0.0" in client.get("/metrics").text), 1)
        text.send_keys("\ue007")
        wait_for(lambda: shown(window), 4)
        assert not error.is_displayed()


def shown(window) -> list[str]:
    """The addresses of the pictures that are done."""
    return window.execute_script("return [...document.querySelectorAll('figure[aria-busy=false] img')].map(i => i.src)")


def wait_for(found, count: int, timeout_s: float = 30) -> list:
    deadline = time.monotonic() + timeout_s
    while len(now := found()) != count:
        assert time.monotonic() < deadline, f"{len(now)} of {count}"
        time.sleep(0.05)
    return now


@SIZES
def test_a_browser_cancels(browser, generator, gate, width, height):
    with serving(generator) as client, browser(width, height) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat\ue007")
        assert window.find_element("css selector", "figure img[src^='data:image/jpeg']")  # a preview
        window.find_element("tag name", "body").send_keys("\ue00c")  # escape
        wait_for(lambda: "x" * window.find_element("id", "status").text.startswith("Cancelled"), 1)
        assert window.find_element("id", "generate").is_displayed()
