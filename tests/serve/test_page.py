"""The page in headless Chromium: search, explain, documents, shared addresses, errors, keyboard, phone."""

import json
import re
import shutil
import time
from urllib.parse import quote

import pytest

from gindex import GradientIndex

SCRIPT = "<img src=x onerror=x()>"
"""Few enough characters for one part; run, it would fail, for there is no x."""


@pytest.fixture(scope="module")
def running(start, built, tmp_path_factory):
    folder = shutil.copytree(built, tmp_path_factory.mktemp("page") / "index")
    more = tmp_path_factory.mktemp("more") / "more.jsonl"
    more.write_text(json.dumps({"id": "<i>script</i>", "text": SCRIPT, "number": 500}) + "\n")
    GradientIndex.open(folder, device="cpu").add([str(more)])
    return start(f"index={folder}", f"second={built}")


def ask(page, running, prompt="the compiler race", **more):
    page.goto(running.url)
    page.fill("#prompt", prompt)
    for name, value in more.items():
        page.fill(f"#{name}", value)
    page.click("#go")


def test_search_shows_both_ends(page, running):
    ask(page, running, completion=" bug", k="4")
    page.wait_for_selector("#positive .hit")
    result = running.search({"prompt": "the compiler race", "completion": " bug", "k": 4, "both": True}).json()
    for end, hits in (("positive", result["hits"]), ("negative", result["negative_hits"])):
        shown = page.locator(f"#{end} .hit h3 span:nth-child(2)").all_inner_texts()
        assert shown == [hit["document_id"] for hit in hits]
    assert page.locator("#positive .bar.pos").count() == page.locator("#negative .bar.neg").count() == 4
    assert {word.lower() for word in page.locator("mark").all_inner_texts()} <= {"compiler", "race", "bug"}
    assert "recall" in page.locator("#badge").get_attribute("title")
    assert page.locator("#plot rect").count() > 5
    page.click("#view-tail")
    assert (
        page.locator("#plot path").count() == 2 and page.locator("#view-tail").get_attribute("aria-pressed") == "true"
    )


def test_addresses_are_shared_and_go_back(page, running):
    ask(page, running, where="number < 20", k="2")
    page.wait_for_selector("#positive .hit")
    shared = page.url
    assert "where=number" in shared
    first = page.locator("#positive").inner_text()
    page.fill("#prompt", "the heap")
    page.click("#go")
    page.wait_for_function("before => document.querySelector('#positive').innerText !== before", arg=first)
    page.go_back()
    page.wait_for_function("before => document.querySelector('#positive').innerText === before", arg=first)
    page.goto("about:blank")
    page.goto(shared)
    page.wait_for_selector("#positive .hit")
    assert page.locator("#positive").inner_text() == first and page.input_value("#where") == "number < 20"


def test_explanations_and_documents(page, running):
    ask(page, running, k="2")
    hit = page.locator("#positive .hit").first
    hit.get_by_text("Explain").click()
    hit.locator(".tokens span").first.wait_for()
    name = hit.locator("h3 span:nth-child(2)").inner_text()
    text = running.http.get(f"/v1/indexes/index/documents/{quote(name, safe='')}").json()["text"]
    assert hit.locator(".tokens").inner_text() == text and hit.locator(".layers .track").count() == 2
    shades = hit.locator(".tokens span").evaluate_all("all => all.map(one => one.style.background)")
    assert len(set(shades)) > 1
    hit.get_by_text("Explain").click()
    assert not hit.locator(".why").is_visible()
    hit.get_by_text("View document").click()
    page.wait_for_selector("#document[open]")
    assert page.locator("#document-text").inner_text() == text
    page.keyboard.press("Escape")
    assert not page.locator("#document").is_visible()


def test_documents_are_text_never_markup(page, running):
    ask(page, running, where="number = 500")
    page.wait_for_selector(".hit")
    hit = page.locator(".hit").first
    assert hit.locator(".text").inner_text() == SCRIPT and "<i>script</i>" in hit.locator("h3").inner_text()
    hit.get_by_text("View document").click()
    page.wait_for_selector("#document[open]")
    assert page.locator("#document-text").inner_text() == SCRIPT
    assert page.title() == "gindex" and page.locator(".hit img, #document img, .hit b, .hit i").count() == 0


def test_an_exact_search_tells_how_far_it_is_and_is_cancelled(page, running, monkeypatch, until):
    twin, ended = running.service.indexes["index"].current.twin, []

    def work(encoded, options, progress):
        try:
            with progress.phase("exact influence", 6000, "parts") as phase:
                for _ in range(6000):
                    time.sleep(0.01)
                    phase.advance()
        finally:
            ended.append(True)

    with monkeypatch.context() as patched:
        patched.setattr(twin, "search_encoded", work)
        page.goto(running.url)
        page.fill("#prompt", "the compiler race")
        page.check("#exact")
        page.click("#go")
        until(lambda: "of 6000 parts" in page.inner_text("#status"))
        page.click("#stop")
        until(lambda: page.inner_text("#status") == "Cancelled.")
        until(lambda: ended)
    assert not page.locator("#stop").is_visible() and page.locator("#go").is_enabled()
    page.click("#go")
    page.wait_for_selector("#positive .hit")
    assert "exact re-rank" in page.inner_text("#status")


def test_errors_are_shown_and_gone_again(page, running):
    ask(page, running, where="number >")
    page.wait_for_selector("#error:not([hidden])")
    assert "position 9" in page.inner_text("#error") and not page.locator("#results").is_visible()
    page.fill("#where", "number > 1000")
    page.click("#go")
    page.wait_for_selector(".empty")
    assert not page.locator("#error").is_visible() and page.locator(".hit").count() == 0
    page.route("**/search", lambda route: route.abort())
    page.click("#go")
    page.wait_for_selector("#error:not([hidden])")
    assert "cannot be reached" in page.inner_text("#error")


def test_a_key_is_asked_for(browser, start, built):
    running = start(f"index={built}", keys="reader read " + "k" * 16)
    page = browser.new_page()
    page.goto(running.url)
    page.wait_for_selector("#error:not([hidden])")
    assert "API key" in page.inner_text("#error")
    page.fill("#key", "k" * 16)
    page.keyboard.press("Tab")
    page.wait_for_selector("#index option", state="attached")
    page.fill("#prompt", "the heap")
    page.click("#go")
    page.wait_for_selector(".hit")
    assert "k" * 16 not in page.url
    page.close()


def test_by_keyboard_alone(page, running):
    page.goto(running.url)
    page.wait_for_selector("#index option", state="attached")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "prompt":
            break
    page.keyboard.type("the compiler race")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".hit")
    assert page.evaluate("document.activeElement.id") == "results"
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Explain":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".tokens span")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_in_both_schemes(browser, running, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.goto(f"{running.url}/?index=second&prompt=the+compiler+race&k=2")
    page.wait_for_selector(".hit")
    assert page.input_value("#index") == "second"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colours = [
        [int(part) for part in re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{what}"))[:3]]
        for what in ("color", "backgroundColor")
    ]
    ink, back = (sum(colour) / 765 for colour in colours)
    assert (back > 0.8 and ink < 0.3) if scheme == "light" else (back < 0.2 and ink > 0.7)
    page.close()


def test_the_interface_is_described_and_tried_without_the_network(page, running):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{running.url}/docs")
    page.wait_for_selector(".opblock")
    assert page.locator(".opblock").count() >= 11
    search = page.locator(".opblock", has=page.locator('[data-path="/v1/indexes/{name}/search"]')).first
    search.locator(".opblock-summary-control").click()
    search.get_by_text("Try it out").click()
    search.locator('tr[data-param-name="name"] input').fill("index")
    body = search.locator("textarea.body-param__text")
    assert json.loads(body.input_value())["completion"] == " a bug"  # the example
    body.fill('{"prompt": "the compiler race", "k": 3}')
    search.get_by_role("button", name="Execute").click()
    search.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert len(asked) > 4 and all(url.startswith((running.url, "data:")) for url in asked), asked


def test_what_is_not_tracked_is_told(page, running):
    page.goto(running.url)
    page.wait_for_selector("#coverage:not([hidden])")
    assert page.inner_text("#coverage-share") == "98.6% of the model\u2019s body is tracked; what is not"
    assert "warning" not in (page.get_attribute("#coverage", "class") or "")
    page.click("#coverage-share")
    norms = page.inner_text("#coverage-untracked li:last-child")
    assert "model.norm.weight: of LlamaRMSNorm, not a linear layer: `layers` everything takes it (1.4%)" in norms


def test_little_that_is_tracked_is_said_aloud(page, running):
    def little(route):
        content = route.fetch().json()
        for index in content["indexes"]:
            index["coverage"] |= {"share": 0.1, "warning": "only 10.0% of the model's body is tracked"}
        route.fulfill(json=content)

    page.route("**/v1/indexes", little)
    page.goto(running.url)
    page.wait_for_selector("#coverage.warning")
    assert page.inner_text("#coverage-share") == "Warning: only 10.0% of the model's body is tracked."


def test_another_index_is_chosen_while_one_is_not_ready(browser, start, built, tmp_path):
    """The first of the list has lost its search index: the page says why and looks again, and the other answers."""
    folder = shutil.copytree(built, tmp_path / "lost")
    lost = next((folder / "search").glob("*.faiss"))
    whole = lost.read_bytes()
    lost.write_bytes(whole[:100])
    page = browser.new_page()
    page.set_default_timeout(20_000)
    page.goto(start(f"lost={folder}", f"kept={built}").url)
    page.wait_for_function("() => document.querySelector('#status').innerText.startsWith('The index is not ready: ')")
    page.select_option("#index", "kept")
    page.fill("#prompt", "the compiler race")
    page.wait_for_timeout(2500)  # the first is looked at again every second, which must not choose it again
    assert page.input_value("#index") == "kept" and page.input_value("#prompt") == "the compiler race"
    page.click("#go")
    page.wait_for_selector("#positive .hit")
    page.select_option("#index", "lost")
    page.wait_for_function("() => document.querySelector('#status').innerText.startsWith('The index is not ready: ')")
    assert page.is_hidden("#results"), "they are of the other index, and their buttons would ask this one"
    lost.write_bytes(whole)
    page.wait_for_function("() => document.querySelector('#status').innerText === ''")
    assert page.inner_text("#index option:checked") == "lost" and page.input_value("#index") == "lost"
    page.close()
