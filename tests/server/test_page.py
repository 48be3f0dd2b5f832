"""The demo's page in a real browser, at phone and desk width."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator

import pytest

from models.sampling.sampler import SamplingConfig
from tests.support.servers import serving


@contextlib.contextmanager
def browser(width: int, height: int) -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_experimental_option(
        "mobileEmulation", {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as window:
        window.implicitly_wait(10)
        yield window


@pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_a_browser_draws_images_by_keyboard(client, width, height):
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


def test_prompts_of_the_model_are_buttons(generator):
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


def test_a_refused_value_in_closed_settings_is_shown(client):
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


def test_a_reload_goes_on_with_the_running_job(generator, gate):
    with serving(generator) as client, browser(390, 844) as window:
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


def test_a_job_is_cancelled_after_a_reload(generator, gate):
    with serving(generator) as client, browser(390, 844) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat\ue007")
        assert window.find_element("css selector", "figure")
        window.refresh()
        assert window.find_element("css selector", "figure")
        window.find_element("tag name", "body").send_keys("\ue00c")  # escape
        wait_for(lambda: "x" * window.find_element("id", "status").text.startswith("Cancelled"), 1)


def test_docs_show_the_interface_without_a_network(client):
    with browser(1280, 900) as window:
        window.get(f"{client.base_url}/docs")
        wait_for(lambda: window.find_elements("css selector", "[data-path='/v1/images']"), 1)
        loaded = window.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(url.startswith((str(client.base_url), "data:")) for url in loaded)
        assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []


def shown(window) -> list[str]:
    """The addresses of the pictures that are done."""
    return window.execute_script("return [...document.querySelectorAll('figure[aria-busy=false] img')].map(i => i.src)")


def wait_for(found, count: int, timeout_s: float = 30) -> list:
    deadline = time.monotonic() + timeout_s
    while len(now := found()) != count:
        assert time.monotonic() < deadline, f"{len(now)} of {count}"
        time.sleep(0.05)
    return now


def test_a_browser_cancels(generator, gate):
    with serving(generator) as client, browser(800, 600) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat\ue007")
        assert window.find_element("css selector", "figure img[src^='data:image/jpeg']")  # a preview
        window.find_element("tag name", "body").send_keys("\ue00c")  # escape
        wait_for(lambda: "x" * window.find_element("id", "status").text.startswith("Cancelled"), 1)
        assert window.find_element("id", "generate").is_displayed()
