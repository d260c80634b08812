"""The report page in a real browser: it asks for nothing, says nothing, and shows hostile texts as texts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from common.lifecycle import die_with_parent
from deploy.cli import main
from tests.browser import browser, watched
from tests.recording import Run, Text, plain
from tests.until import until

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>",
    "\u202edlrow\x1b[2J\x00 & &lt; <!-- \u2028 ]]> {{ 7 * 7 }} ${alert(1)} $\\frac$",
    "long" * 20_000,
)
ORIGINAL_TITLE = "Run "
AT_WORK = "setInterval(() => sessionStorage.getItem('rests') || dispatchEvent(new Event('keydown')), 200)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


def hostile(ticket: int, place: int) -> str:
    return HOSTILE[place] if ticket == 7 else plain(ticket, place)


def recorded(folder: Path, text: Text = plain, steps: int = 30, **sections: object) -> Run:
    run = Run(folder, steps=steps, text=text, **sections)
    run.step(steps)
    run.evaluated()
    run.finish()
    return run


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one finished run with a group of hostile completions."""
    run = recorded(tmp_path_factory.mktemp("runs") / "one", hostile)
    assert main(["report", str(run.folder)]) == 0
    return run.folder / "report.html"


def rows(page: Page) -> list[str]:
    """The tickets that are listed."""
    return page.locator("#list tbody > tr button[aria-expanded]").all_inner_texts()


def filters(page: Page) -> Locator:
    return page.locator("#filters")


def test_the_page_asks_for_nothing_and_has_no_errors(chromium: Browser, page_file: Path) -> None:
    for scheme, width in (("light", 1280), ("dark", 390)):
        with watched(chromium, color_scheme=scheme, viewport={"width": width, "height": 800}) as seen:
            seen.page.goto(page_file.as_uri())
            assert seen.page.locator("figure svg[role=img]").count() > 15
            assert seen.page.locator("#count").inner_text().endswith("groups, 1 to 50 are shown")
            wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, "nothing but tables scrolls sideways"
            assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
                "rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 27)"
            )
            assert seen.requests == [page_file.as_uri()] and seen.said == [] and seen.dialogs == []


def test_what_came_out_stands_in_real_tables(chromium: Browser, page_file: Path) -> None:
    with watched(chromium) as seen:
        seen.page.goto(page_file.as_uri())
        cell = seen.page.get_by_role("row", name="held-out greedy").get_by_role("cell").first
        assert re.match(r"25\.0 \[[\d., ]+\] → 75\.0 \[[\d., ]+\] \(\+50\.0 points", cell.inner_text())
        books = seen.page.get_by_role("row", name="tickets", exact=False).first.inner_text()
        assert "63 issued = 60 trained + 3 dropped" in books
        assert seen.page.get_by_role("row", name="dropped because").get_by_role("cell").first.inner_text() == "stale 3"
        assert "The run is finished" in seen.page.locator("#written").inner_text()
        for box in seen.page.locator("form :is(input, select)").all():
            assert box.evaluate("one => one.labels.length") == 1


def test_filters_and_a_group_by_keyboard_alone(chromium: Browser, page_file: Path) -> None:
    with watched(chromium) as seen:
        page = seen.page
        page.goto(page_file.as_uri())
        filters(page).get_by_label("text").press_sequentially("of ticket 12:")
        assert rows(page) == ["12"]
        filters(page).get_by_label("text").press("Tab")
        page.keyboard.press("Enter")  # the button that shows all
        until(lambda: len(rows(page)) == 50, "all rows")
        filters(page).get_by_label("outcome").select_option("dropped: stale")
        assert len(rows(page)) == 3
        filters(page).get_by_label("outcome").select_option("")
        filters(page).get_by_label("status").select_option("timeout")
        timeouts = rows(page)
        filters(page).get_by_label("reward from").fill("0.5")
        assert timeouts and rows(page) == [], "a completion is to have both"
        filters(page).get_by_label("reward from").fill("")
        filters(page).get_by_label("status").select_option("")
        page.get_by_role("group", name="policy version").get_by_label("from").fill("29")
        newest = rows(page)
        assert len(newest) == 3, "step 30 and what was dropped beside it"
        page.get_by_role("button", name=newest[0], exact=True).press("Enter")
        group = page.locator(".group")
        assert f"completion 2 of ticket {newest[0]}:" in group.inner_text()
        for word in ("prompt", "gold answer", "sigma_u", "r_hat", "RM score", "advantage", "rule", "same text"):
            assert word in group.inner_text(), word
        # What is chosen is in the address
        with watched(chromium) as other:
            other.page.goto(page.url)
            assert rows(other.page) == newest and other.page.locator(".group").count() == 1
        assert seen.said == []


def test_hostile_completions_are_texts_and_nothing_runs(chromium: Browser, page_file: Path) -> None:
    with watched(chromium) as seen:
        page = seen.page
        page.goto(page_file.as_uri())
        filters(page).get_by_label("text").fill("onerror")
        assert rows(page) == ["7"]
        page.get_by_role("button", name="7", exact=True).click()
        texts = page.locator(".completion pre").all_inner_texts()
        assert texts[:2] == list(HOSTILE[:2])
        assert texts[2].startswith("\\u202edlrow\\x1b[2J\\x00 & &lt; <!-- \n ]]> {{ 7 * 7 }} ${alert(1)} $\\frac$")
        assert 2_000 < len(texts[3]) < 10_000 and " [...] " in texts[3]
        assert page.locator(".group :is(script, img, svg)").count() == 0
        assert page.title().startswith(ORIGINAL_TITLE) and seen.said == [] and seen.dialogs == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_policy_of_the_page_stops_what_would_run_all_the_same(chromium: Browser, page_file: Path) -> None:
    with watched(chromium) as seen:
        seen.page.goto(page_file.as_uri())
        seen.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"https://example.org/x.png\">')")
        seen.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
        )
        until(lambda: sum("Content Security Policy" in line for line in seen.said) == 2, "both are refused")
        assert seen.page.title().startswith(ORIGINAL_TITLE)


def test_several_runs_have_a_colour_each_and_their_settings_compared(chromium: Browser, tmp_path: Path) -> None:
    runs = [recorded(tmp_path / "hero"), recorded(tmp_path / "plain", reward={"mode": "verifier"})]
    out = tmp_path / "both.html"
    assert main(["report", *(str(run.folder) for run in runs), "--out", str(out)]) == 0
    with watched(chromium) as seen:
        page = seen.page
        page.goto(out.as_uri())
        differing = page.get_by_role("table", name="Settings in which the runs differ")
        assert "reward.mode\thero\thero\tverifier" in differing.inner_text()
        assert "learner.lr" not in differing.inner_text()
        assert [one.strip() for one in page.locator(".legend.all .key").all_inner_texts()] == ["hero", "plain"]
        plot = page.locator("figure", has_text="Verifier accuracy of training samples").locator("svg").first
        assert re.search(r"hero: first .*; plain: first ", plot.get_attribute("aria-label") or "")
        colors = {line.get_attribute("stroke") for line in plot.locator("g:has(> title) > path").all()}
        assert len(colors) == 2
        filters(page).get_by_role("combobox", name="run", exact=True).select_option("plain")
        assert set(page.locator("#list tbody > tr > td:nth-child(2)").all_inner_texts()) == {"plain"}
        assert seen.said == [] and seen.requests == [out.as_uri()]


def test_a_page_that_is_written_anew_keeps_filter_group_and_place(chromium: Browser, tmp_path: Path) -> None:
    # Given a run that goes on, and `hero report --follow` beside it
    run = Run(tmp_path / "living", steps=40)
    run.step(20)
    out = run.folder / "report.html"
    command = [sys.executable, "-m", "deploy.cli", "report", str(run.folder), "--follow", "--every", "1"]
    log = (tmp_path / "log").open("wb")
    follower = subprocess.Popen(command, stderr=log, preexec_fn=die_with_parent, env=os.environ | {"NO_COLOR": "1"})
    try:
        until(out.is_file, "first page", seconds=120)
        with watched(chromium, viewport={"width": 1000, "height": 500}) as seen:
            page = seen.page
            page.add_init_script(AT_WORK)  # else a reload may come between two calls
            page.goto(out.as_uri())
            assert "reloads itself every 1 s" in page.locator("#written").inner_text()
            filters(page).get_by_label("kind").select_option("mixed")
            opened = rows(page)[5]
            page.get_by_role("button", name=opened, exact=True).click()
            page.locator("#changed summary").click()
            filters(page).get_by_label("kind").focus()
            page.evaluate("scrollTo(0, document.querySelector('#browser').offsetTop + 30)")
            before = page.locator("#written").get_attribute("data-written")
            # When it goes on, to its end, and the reader rests
            page.evaluate("sessionStorage.setItem('rests', 'yes')")
            run.step(20)
            run.finish()
            # Then the page is the newer one, at the same place, and rests
            done = page.get_by_text("The run is finished")
            done.wait_for(state="attached", timeout=120_000)
            page.wait_for_load_state()  # its head may be there before its groups and scripts
            assert page.locator("#written").get_attribute("data-written") != before
            assert "finished: 40 of 40 steps" in page.locator("table").first.inner_text()
            assert filters(page).get_by_label("kind").input_value() == "mixed"
            assert page.locator(".group").count() == 1 and f"of ticket {opened}:" in page.locator(".group").inner_text()
            assert page.locator("#changed").get_attribute("open") is not None
            assert page.evaluate("document.activeElement.name") == "kind"
            top = page.locator("#browser").bounding_box()
            assert top and abs(top["y"] + 30) < 2, "what is read does not move"
            assert seen.said == [] and set(seen.requests) == {out.as_uri()}
        assert follower.wait(60) == 0, "it ends with the run"
    finally:
        follower.kill()
        follower.wait()
        log.close()


def test_a_signal_ends_the_following_and_the_last_page_rests(tmp_path: Path) -> None:
    run = Run(tmp_path / "living", steps=40)
    run.step(3)
    out = run.folder / "report.html"
    command = [sys.executable, "-m", "deploy.cli", "report", str(run.folder), "--follow", "--every", "1"]
    with (tmp_path / "log").open("wb") as log:
        follower = subprocess.Popen(command, stderr=log, preexec_fn=die_with_parent)
    try:
        until(lambda: b"Ctrl-C ends it" in (tmp_path / "log").read_bytes(), "the following", seconds=120)
        assert 'data-refresh="1"' in out.read_text()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 0
        assert 'data-refresh=""' in out.read_text() and "nobody writes this page anew" in out.read_text()
    finally:
        follower.kill()
        follower.wait()
