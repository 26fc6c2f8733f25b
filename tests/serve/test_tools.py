"""The tools of `gindex mcp`, asked by the official SDK's client over standard input and output."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

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
            return tools, found, why, bad

    tools, found, why, bad = asyncio.run(asyncio.wait_for(ask(), 120))
    assert tools == {"search", "explain"}
    hits = json.loads(found.content[0].text)["hits"]
    expected = index.search("the compiler race", " bug", k=3, group_by="document").hits
    assert [hit["document_id"] for hit in hits] == [hit.document_id for hit in expected]
    explained = json.loads(why.content[0].text)
    assert explained["influence"] == pytest.approx(index.explain("d3", "the compiler race").influence)
    assert bad.is_error and "position 9" in bad.content[0].text
