"""The tools of `gindex mcp`, asked by the official SDK's client over standard input and output."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gindex import Query

pytest.importorskip("mcp", reason="needs gradient-index[mcp]")


def test_search_and_explain_as_tools(built, index):
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def ask():
        command = StdioServerParameters(
            command=str(Path(sys.executable).with_name("gindex")), args=["mcp", str(built), "--device", "cpu"]
        )
        async with stdio_client(command) as streams, ClientSession(*streams) as session:
            await session.initialize()
            tools = {tool.name for tool in (await session.list_tools()).tools}
            found = await session.call_tool("search", {"prompt": "the compiler race", "completion": " bug", "k": 3})
            why = await session.call_tool("explain", {"document_id": "d3", "prompt": "the compiler race"})
            bad = await session.call_tool("search", {"prompt": "the heap", "where": "number >"})
            rather = {"prompt": "the compiler race", "completion": " bug", "contrast": " page", "k": 2}
            contrast = await session.call_tool("search", rather)
            return tools, found, why, bad, contrast

    tools, found, why, bad, contrast = asyncio.run(asyncio.wait_for(ask(), 120))
    assert tools == {"search", "explain"}
    hits = json.loads(found.content[0].text)["hits"]
    expected = index.search("the compiler race", " bug", k=3, hits="document").hits
    assert [hit["document_id"] for hit in hits] == [hit.document_id for hit in expected]
    rather = index.search(Query(prompt="the compiler race", completion=" bug", contrast=" page"), k=2, hits="document")
    hits = json.loads(contrast.content[0].text)["hits"]
    assert [hit["document_id"] for hit in hits] == [hit.document_id for hit in rather.hits]
    explained = json.loads(why.content[0].text)
    assert explained["influence"] == pytest.approx(index.explain("d3", "the compiler race").influence)
    assert bad.is_error and "position 9" in bad.content[0].text


@pytest.fixture
def assistant(built):
    """A process of the command that has answered once, as an assistant talks to it."""
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
    }  # fmt: skip
    process = subprocess.Popen(
        [Path(sys.executable).with_name("gindex"), "mcp", built, "--device", "cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    ask = json.dumps(hello).encode() + b"\n"
    process.stdin.write(ask)
    process.stdin.flush()
    assert process.stdout.readline().startswith(b'{"jsonrpc"')
    yield process, ask
    process.kill()
    process.wait()


def test_interrupted_while_it_waits_for_a_line(assistant):
    process, _ = assistant
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read().splitlines()[-1].startswith(b"gindex: interrupted")


def test_assistant_that_goes_away(assistant):
    process, ask = assistant
    process.stdout.close()
    process.stdin.write(ask)
    process.stdin.close()
    assert process.wait(60) == 141
    assert b"Traceback" not in process.stderr.read()
