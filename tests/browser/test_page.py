"""The page in a real Chromium, on a daemon with 500 guests: what it shows, how it is used, and what it leaves alone."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Route

from ksmtuned_py.units import GIB, KIB, MIB
from tests.support.chromium import Tab, tab
from tests.support.daemon import Daemon
from tests.support.pagestage import HOSTILE, Stage
from tests.support.reports import OUTLOOK
from tests.support.trees import FakeGuest, add_guest

MOST_BYTES = 150 * KIB
CELL = "#guests tbody tr:nth-child({row}) > :nth-child({column})"
HEAD = "#guests thead th:nth-child({column})"
MERGED = 5
"""The column of merged memory."""


def first(opened: Tab, column: int) -> str:
    """The text of a column in the table's first row."""
    return opened.text(CELL.format(row=1, column=column))


def order(opened: Tab, column: int) -> str | None:
    """How a column is sorted."""
    return opened.page.get_attribute(HEAD.format(column=column), "aria-sort")


def wait_text(opened: Tab, selector: str, text: str) -> None:
    """Waits until an element has that text in it."""
    opened.page.locator(selector).filter(has_text=text).first.wait_for(state="attached")


def test_the_first_look_says_what_is_saved_why_and_whether_the_host_could_fall(opened: Tab, daemon: Daemon) -> None:
    assert opened.text("#saved") == "8 GiB"
    decision = daemon.status()["decision"]
    assert opened.text("#mode").lower() == f"{decision['mode']}:"
    assert "guest" in opened.text("#reason")
    assert opened.text("#fall") == "No: headroom covers the debt"
    assert (opened.text("#debt"), opened.text("#headroom")) == ("8 GiB", "20 GiB")
    assert decision["verdicts"][0]["sentence"].partition(":")[0] in opened.text("#rules")
    assert opened.text("#decisions strong").lower() == decision["mode"]


def test_how_many_more_guests_fit_is_told_once_it_is_known(stage: Stage, opened: Tab) -> None:
    assert (opened.text("#fits"), opened.text("#chance")) == ("not known yet", "not known yet")

    def known(status: Any) -> None:
        status["totals"]["capacity"] = asdict(OUTLOOK)

    with told(stage, known) as second:
        wait_text(second, "#fits", "12")
        assert second.text("#chance") == "0.4 %"


def test_guests_without_room_below_a_limit_are_told(stage: Stage, daemon: Daemon) -> None:
    def limited(status: Any) -> None:
        for guest in status["snapshot"]["guests"]:
            guest["room_bytes"] = {"guest-400": 17 * MIB, "guest-401": 4 * GIB, "guest-402": 0}.get(guest["name"])

    with told(stage, limited) as second:
        wait_text(second, "#fall", "Not the host, but 2 guests could")
        assert second.page.get_attribute("#fall", "class") == "verdict warn"
        said = "A limit leaves no room for what they have merged: guest-400, guest-402."
        assert second.text("#fall-note").endswith(f" {said}")


def test_the_huge_pages_of_guests_are_not_those_of_the_host(stage: Stage, opened: Tab) -> None:
    assert opened.text("#huge") == "not known yet"
    assert opened.text("#losses-note").startswith("The host has 6 GiB in huge pages.")

    def known(status: Any) -> None:
        for guest in status["snapshot"]["guests"][:3]:
            guest["huge_bytes"] = GIB

    with told(stage, known) as second:
        wait_text(second, "#huge", "3 GiB")


@contextmanager
def told(stage: Stage, change: Callable[[Any], None]) -> Iterator[Tab]:
    """Opens the page on a daemon whose word is changed on its way."""

    def changed(route: Route) -> None:
        answer = route.fetch()
        status = answer.json()
        change(status)
        route.fulfill(response=answer, json=status)

    with tab(stage.browser) as second:
        second.page.route("**/api/v1/status", changed)
        second.page.goto(stage.address)
        yield second


def test_a_sensor_that_cannot_be_read_is_told(opened: Tab) -> None:
    assert "pressure/memory" in opened.text("#attention-list")
    assert opened.text("#pressure") == "not known"


def test_the_charts_have_their_figures_as_text(opened: Tab) -> None:
    wait_text(opened, "figure", "Saved memory")
    figures = opened.page.locator("figure")
    assert figures.count() == 6
    assert all(figures.nth(number).locator("canvas").count() == 1 for number in range(6))
    assert "8 GiB" in (figures.first.text_content() or "")


def test_what_the_doctor_found_is_told_with_its_severity_and_what_helps(opened: Tab) -> None:
    wait_text(opened, "#doctor-age", "findings of ")
    notes = opened.page.locator("#doctor li.note")
    assert notes.count() > 0
    assert (notes.first.text_content() or "").startswith("Note ")
    assert "What helps: " in (notes.first.text_content() or "")
    assert opened.page.locator("#doctor :not(li, p, strong, small)").count() == 0


def test_what_changes_on_the_host_is_shown_by_itself(stage: Stage, opened: Tab) -> None:
    stage.save(9.5)
    wait_text(opened, "#saved", "9.5 GiB")
    assert opened.page.title().startswith("9.5 GiB saved, ")
    stage.save(8)
    wait_text(opened, "#saved", "8 GiB")


def test_rows_stay_and_only_change(stage: Stage, opened: Tab) -> None:
    opened.page.evaluate("""() => {
        window.made = 0;
        const count = (changes) => changes.forEach((change) => { window.made += change.addedNodes.length; });
        const body = document.querySelector("#guests tbody");
        new MutationObserver(count).observe(body, { childList: true, subtree: true });
    }""")
    guest = FakeGuest(pid=2300, name="guest-300", merging_pages=30_001, rss_pages=500_000)
    add_guest(stage.root, guest)
    wait_text(opened, "#guests tbody tr", "1.9 GiB")
    assert 0 < opened.page.evaluate("window.made") < 30  # of 5,000 cells


def test_a_click_sorts_and_another_turns_around(opened: Tab) -> None:
    button = opened.page.locator(HEAD.format(column=MERGED)).get_by_role("button")
    button.click()
    assert order(opened, MERGED) == "descending"
    assert first(opened, 1) == "guest-499"
    button.click()
    assert order(opened, MERGED) == "ascending"
    assert first(opened, MERGED) == "0 B"


def test_the_keyboard_sorts_too(opened: Tab) -> None:
    opened.page.locator(HEAD.format(column=2)).get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    assert (order(opened, 2), first(opened, 2)) == ("ascending", "2000")
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Space")
    assert (order(opened, 2), order(opened, 3)) == (None, "descending")


@pytest.mark.parametrize(
    ("words", "fitting"), [("GUEST-123", 1), ("guest 2123", 1), ("-000000000123", 1), ("no such", 0)]
)
def test_a_filter_takes_names_numbers_and_uuids(opened: Tab, words: str, fitting: int) -> None:
    opened.page.fill("#filter", words)
    assert opened.page.locator("#guests tbody tr:visible").count() == fitting
    assert opened.text("#count") == f"{fitting} of 500"
    assert opened.text("#announcement") == f"{fitting} of 500 guests"


def test_a_guests_name_is_text_whatever_it_says(opened: Tab) -> None:
    opened.page.locator(HEAD.format(column=1)).get_by_role("button").click()
    names = opened.page.locator("#guests tbody th").all_text_contents()
    assert len(names) == 500
    assert set(HOSTILE) <= set(names)
    made = "#guests tbody :not(tr, th, td), body script, img"
    assert opened.page.locator(made).count() == 0
    assert opened.complaints == []


def test_nothing_complains_and_nobody_else_is_asked(stage: Stage, opened: Tab) -> None:
    opened.page.reload()
    status, history = f"{stage.address}api/v1/status", f"{stage.address}api/v1/history?seconds=3600&points=360"
    for _ in range(2):
        with opened.page.expect_response(status):
            pass
    assert history in opened.asked
    assert [url for url in opened.asked if not url.startswith((stage.address, "data:"))] == []
    assert opened.complaints == []


def test_the_page_is_small(stage: Stage, daemon: Daemon) -> None:
    with tab(stage.browser, stage.address) as opened:
        opened.page.wait_for_selector("#guests tbody tr", state="attached")
        taken = opened.page.evaluate("""() => [...performance.getEntriesByType("navigation"),
            ...performance.getEntriesByType("resource")].map((entry) => [entry.name, entry.decodedBodySize])""")
    page = {url: size for url, size in taken if "/api/" not in url}
    assert len(page) == 10
    assert all(page.values())
    assert sum(page.values()) <= MOST_BYTES, page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(stage: Stage, daemon: Daemon, scheme: Any) -> None:
    with tab(stage.browser, stage.address, color_scheme=scheme) as opened:
        opened.page.wait_for_selector("#guests tbody tr", state="attached")
        opened.page.click("summary")
        opened.page.fill("#filter", "guest-12")  # all rows are alike, and each takes its time
        found = Axe().run(opened.page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(serious, indent=1)


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_has_no_bar_to_scroll_sideways(stage: Stage, daemon: Daemon, width: int) -> None:
    with tab(stage.browser, stage.address, viewport={"width": width, "height": 780}) as opened:
        opened.page.wait_for_selector("#guests tbody tr", state="attached")
        opened.page.click("summary")
        opened.page.locator("#decisions").scroll_into_view_if_needed()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        region = opened.page.locator("#guests")
        assert region.evaluate("(region) => region.scrollWidth <= region.clientWidth")


def test_nothing_moves_for_whoever_does_not_want_it(stage: Stage, daemon: Daemon) -> None:
    with tab(stage.browser, stage.address, reduced_motion="reduce") as opened:
        moving = "(bar) => getComputedStyle(bar).transitionDuration"
        assert opened.page.locator("#debt-bar").evaluate(moving) == "0s"


def test_a_hidden_page_asks_seldom(stage: Stage, daemon: Daemon) -> None:
    with tab(stage.browser) as opened:
        opened.page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => true })")
        opened.page.clock.install()
        opened.page.goto(stage.address)
        opened.page.wait_for_selector("#guests tbody tr", state="attached")
        opened.page.wait_for_load_state("networkidle")
        asked = len(opened.asked)
        opened.page.clock.run_for(28_000)
        assert len(opened.asked) == asked
        with opened.page.expect_response("**/api/v1/status"):
            opened.page.clock.run_for(4_000)


def test_an_error_that_the_daemon_answers_with_is_shown_in_its_words(stage: Stage, daemon: Daemon) -> None:
    with tab(stage.browser) as opened:
        refusal = {"status": 503, "json": {"error": "no tick yet"}}
        opened.page.route("**/api/v1/status", lambda route: route.fulfill(**refusal), times=1)
        opened.page.goto(stage.address)
        wait_text(opened, "#trouble", "The daemon answers with an error, 503: no tick yet.")
        opened.page.wait_for_selector("#trouble", state="hidden")


def test_the_daemons_end_is_shown_and_so_is_its_return(stage: Stage, opened: Tab, daemon: Daemon) -> None:
    """It is last, because it ends the daemon of all others."""
    assert daemon.end() == 0
    opened.page.wait_for_selector("#trouble", state="visible")
    assert opened.text("#trouble").startswith("The daemon does not answer since ")
    assert opened.text("#announcement") == opened.text("#trouble")
    stage.save(5)
    with stage.start() as again:
        opened.page.wait_for_selector("#trouble", state="hidden")
        wait_text(opened, "#saved", "5 GiB")
        assert opened.text("#announcement") == "The daemon answers again."
        assert again.end() == 0  # and so does the doctor that looks for the page
