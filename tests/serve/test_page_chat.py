"""The page's chat view and bars by source in headless Chromium: what is asked, and that what is shown is the answer."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from gindex import GradientIndex

TALK = [
    {"role": "user", "content": "the compiler race"},
    {"role": "assistant", "content": "a 🔒 lock: the stack"},
    {"role": "user", "content": "the heap"},
    {"role": "assistant", "content": "a cache and a page <b>"},
]
SOURCES = ["web", "books", "it's", None, 7]


@pytest.fixture(scope="module")
def running(start, tmp_path_factory, corpus_file, chat_model, make_config):
    """A service of an index of texts with sources, and of one conversation."""
    folder = tmp_path_factory.mktemp("chats")
    records = [
        json.loads(line) | {"source": SOURCES[n % len(SOURCES)]}
        for n, line in enumerate(corpus_file.read_text().splitlines()[:60])
    ]
    chat = {"id": "talk", "messages": TALK, "number": 900}
    lines = [json.dumps(record) for record in (*records, chat)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    config = make_config(name=str(chat_model), max_tokens=128)
    GradientIndex.build([str(folder / "corpus.jsonl")], folder / "index", config)
    return start(f"index={folder / 'index'}")


@pytest.fixture
def bodies(page):
    """The bodies of the searches that the page asks for."""
    found = []
    page.on("request", lambda r: found.append(r.post_data_json) if r.url.endswith("/search") else None)
    return found


def paste(page, running, text):
    page.goto(running.url)
    page.click("#as-conversation")
    page.fill("#pasted", text)
    page.click("#take")


def shown_ids(page, end="positive"):
    return page.locator(f"#{end} .hit h3 span:nth-child(2)").all_inner_texts()


def drag_over(page, turn, first, last):
    """Select from one text of a turn to another with the mouse."""
    box = page.evaluate(
        """([turn, first, last]) => {
            const text = document.querySelectorAll('#turns .said')[turn].firstChild, range = document.createRange();
            range.setStart(text, text.data.indexOf(first));
            range.setEnd(text, text.data.indexOf(last) + last.length);
            const { left, right, top, bottom } = range.getBoundingClientRect();
            return [left + 1, right - 1, (top + bottom) / 2];
        }""",
        [turn, first, last],
    )
    page.mouse.move(box[0], box[2])
    page.mouse.down()
    page.mouse.move(box[1], box[2], steps=5)
    page.mouse.up()


def test_a_turn_is_clicked_and_words_of_it_are_selected(page, running, bodies, until):
    paste(page, running, json.dumps({"messages": TALK}))
    counts = page.locator("#turns .counts")
    assert counts.evaluate_all("all => all.map(one => one.ariaPressed)") == ["false", "true"]
    page.locator("#turns .turn").nth(1).click()
    until(lambda: counts.evaluate_all("all => all.map(one => one.ariaPressed)") == ["true", "false"])
    drag_over(page, 1, "lock", "the")
    page.wait_for_selector("#turns mark")
    assert page.inner_text("#turns mark") == "lock: the"
    page.fill("#contrast", "a page")
    page.fill("#k", "3")
    page.click("#go")
    page.wait_for_selector("#positive .hit")
    query = {"messages": TALK, "turn": 2, "span": [4, 13], "contrast": "a page"}  # the lock is one character of Python
    assert TALK[1]["content"][4:13] == "lock: the"
    assert {name: bodies[0].get(name) for name in query} == query and "prompt" not in bodies[0]
    answer = running.search({**query, "k": 3, "both": True}).json()
    for end, hits in (("positive", answer["hits"]), ("negative", answer["negative_hits"])):
        assert shown_ids(page, end) == [hit["document_id"] for hit in hits]
    shared, before = page.url, page.inner_text("#positive")
    page.click("#turns .clear")
    assert page.locator("#turns mark").count() == 0
    page.click("#go")
    page.wait_for_function("before => document.querySelector('#positive').innerText !== before", arg=before)
    assert "span" not in bodies[-1] and bodies[-1]["turn"] == 2
    page.goto("about:blank")
    page.goto(shared)
    page.wait_for_selector("#positive .hit")
    assert page.inner_text("#positive") == before and page.inner_text("#turns mark") == "lock: the"
    assert page.input_value("#contrast") == "a page" and bodies[-1] == bodies[0]


def test_by_keyboard_alone_words_are_chosen_and_turns_are_built(page, running, bodies, until):
    paste(page, running, "User: the compiler race\nAssistant: a lock and\na page")
    page.locator("#turns .counted .said").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert page.inner_text("#turns mark") == "lock and"
    page.keyboard.press("Escape")
    assert page.locator("#turns mark").count() == 0 and page.evaluate("document.activeElement.className") == "said"
    page.locator("#add-turn").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("the heap")
    page.get_by_text("Done").press("Enter")
    page.locator("#add-turn").press("Enter")
    page.keyboard.type("a cache")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#positive .hit")
    assert [turn["role"] for turn in bodies[0]["messages"]] == ["user", "assistant"] * 2
    assert (
        bodies[0]["messages"][1]["content"] == "a lock and\na page" and bodies[0]["messages"][3]["content"] == "a cache"
    )
    assert bodies[0]["turn"] == 4
    page.get_by_text("Done").click()
    page.get_by_label("Remove turn 4").click()
    page.get_by_label("Remove turn 2").click()
    page.click("#go")
    page.wait_for_selector("#error:not([hidden])")
    assert "ends with the assistant's answer" in page.inner_text("#error")


def test_what_cannot_be_read_is_told(page, running, bodies):
    for text, words in (("[1", "begins like JSON"), ("[3]", "Turn 1 is no object"), ("hello", "User:")):
        paste(page, running, text)
        assert words in page.inner_text("#paste-error"), text
        page.click("#go")
        assert page.input_value("#pasted") == text and not bodies
    paste(page, running, json.dumps({"conversations": [{"from": "human", "value": "the race"}]}))
    assert page.locator("#turns .role").all_inner_texts() == ["user"] and page.is_hidden("#paste-error")


def test_hits_and_documents_say_their_form(running):
    hits = running.search({"prompt": "the compiler race", "k": 100}).json()["hits"]
    assert {hit["document_id"]: hit.get("form") for hit in hits if "form" in hit} == {"talk": "messages"}
    assert len(hits) > 50
    talk, text = (running.http.get(f"/v1/indexes/index/documents/{name}").json() for name in ("talk", "d3"))
    assert (talk["form"], talk["content"]) == ("messages", {"messages": TALK})
    assert (text["form"], text["content"]) == ("text", {})


def test_hits_that_are_conversations_are_shown_as_turns(page, running):
    page.goto(f"{running.url}/?prompt=the+compiler+race&where=number+%3D+900")
    page.locator(".hit").scroll_into_view_if_needed()
    page.wait_for_selector(".hit .turn")
    said = [turn["content"] for turn in TALK]
    assert page.locator(".hit .said").all_inner_texts() == said and "im_start" not in page.inner_text(".hit")
    page.get_by_text("View document").click()
    page.wait_for_selector("#document[open]")
    assert page.locator("#document .said").all_inner_texts() == said
    assert page.locator("#document b").count() == 0, "text, never markup"


def test_bars_are_the_groups_of_the_answer_and_filter(page, running, bodies, until):
    page.goto(f"{running.url}/?prompt=the+compiler+race&completion=+bug")
    page.wait_for_selector("#positive .hit")
    assert page.locator("#fields option").evaluate_all("all => all.map(one => one.value)") == ["number", "source"]
    page.fill("#by", "source")
    page.keyboard.press("Enter")
    page.wait_for_selector("#sources .source")
    query = {"prompt": "the compiler race", "completion": " bug", "group_by": "source"}
    groups = running.search(query).json()["groups"]["groups"]
    assert {name: bodies[-1][name] for name in query} == query

    def bars():
        return page.locator("#sources .source").evaluate_all(
            """all => all.map(row => {
                const of = (name) => row.querySelector(`.${name}`), bar = of("source-bar");
                return [of("source-name").innerText, of("source-count").innerText, bar.className.split(" ")[1],
                    parseFloat(bar.style.width), parseFloat(of("whisker").style.width)];
            })"""
        )

    for measure in ("sum", "mean"):
        page.click(f"#measure-{measure}")
        expected = sorted(groups, key=lambda group: -group[measure])
        intervals = [group[f"{measure}_interval"] for group in expected]
        ends = [0, *(group[measure] for group in expected), *(end for interval in intervals for end in interval)]
        wide = max(ends) - min(ends)
        found = bars()
        names = ["none" if group["value"] is None else str(group["value"]) for group in expected]
        assert [each[:3] for each in found] == [
            [name, str(group["documents"]), "pos" if group[measure] >= 0 else "neg"]
            for name, group in zip(names, expected, strict=True)
        ]
        for each, group, interval in zip(found, expected, intervals, strict=True):
            assert each[3] == pytest.approx(100 * abs(group[measure]) / wide, abs=1e-3)
            assert each[4] == pytest.approx(100 * (interval[1] - interval[0]) / wide, abs=1e-3)
    shared = page.url
    assert parse_qs(urlsplit(shared).query)["by"] == ["source"]
    page.get_by_role("button", name=re.compile(r"^it's: mean")).click()
    until(lambda: len(bodies) > 2 and bodies[-1].get("where") == "source = 'it''s'")
    page.wait_for_function("() => document.querySelectorAll('#sources .source').length === 1")
    page.goto(shared)
    page.wait_for_function("() => document.querySelectorAll('#sources .source').length === 5")
    page.fill("#by", "colour")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#sources-note').innerText.includes('expected a field')")


def test_a_chat_fits_a_phone(browser, running):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    query = f"messages={json.dumps(TALK)}&turn=2&span=4:13&by=source&k=2"
    page.goto(f"{running.url}/?{query}")
    page.wait_for_selector("#sources .source")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.inner_text("#turns mark") == "lock: the"
    page.close()


def test_what_is_too_long_for_an_address_is_kept_in_the_tab(page, running):
    long = [TALK[0], {"role": "assistant", "content": "a lock and " * 5}] * 60
    paste(page, running, json.dumps(long))
    page.click("#go")
    page.wait_for_selector("#too-long:not([hidden])")
    assert len(page.url) < 200
    page.reload()
    page.wait_for_selector("#turns .turn:nth-child(120)")
