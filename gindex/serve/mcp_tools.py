"""Search and explanation as tools of the Model Context Protocol, over a local index or one at a service."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Unpack

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from gindex.errors import GindexError
from gindex.exact.explanation import Explanation
from gindex.keywords import SearchKeywords
from gindex.queries.query import Query
from gindex.queries.records import read_query
from gindex.search.result import SearchResult, result_record
from gindex.search_options import SearchOptions

INSTRUCTIONS = (
    "Finds the training documents that made a language model say something, by the influence of their gradients. "
    "Positive influence: training on the document makes the completion likelier. It is evidence, not proof."
)
MAX_RESULTS = 50
"""Most hits, and most tokens of an explanation, that a tool returns."""


class Searchable(Protocol):
    """The part of `GradientIndex` and `Client` that the tools use."""

    def search(
        self,
        query: str | Query,
        completion: str | None = None,
        options: SearchOptions = ...,
        **settings: Unpack[SearchKeywords],
    ) -> SearchResult:
        """See `GradientIndex.search`."""
        ...

    def explain(self, document_id: str, query: str | Query, completion: str | None = None) -> Explanation:
        """See `GradientIndex.explain`."""
        ...


@contextmanager
def told() -> Iterator[None]:
    """Turn gindex's errors into errors of a tool, whose message the caller sees."""
    try:
        yield
    except GindexError as error:
        raise ToolError(str(error)) from error


def make_tools(index: Searchable) -> MCPServer:
    """Return a server whose tools ask an index, one call at a time."""
    server, one = MCPServer("gindex", instructions=INSTRUCTIONS), threading.Lock()

    @server.tool()
    def search(
        prompt: str | None = None,
        completion: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        contrast: str | None = None,
        k: int = 5,
        where: str | None = None,
        negative: bool = False,
        exact: bool = False,
    ) -> dict[str, Any]:
        """Find the training documents with the most influence on what a model says after a prompt or in a conversation.

        Args:
            prompt: Text before the completion; without a completion all of it counts.
            completion: What the model said; only its tokens count. It mostly begins with a space.
            messages: A conversation in the place of prompt and completion: objects with role and content. What the
                assistant says last counts.
            contrast: What the model might have said instead: influence is then that on the difference.
            k: Documents to return, 50 at most.
            where: Filter over metadata, as in "year >= 1990 and kind = 'noun'".
            negative: Find documents that made the completion less likely.
            exact: Order the best 300 parts by recomputed influence, which takes a minute or more; `certificate` is then
                the probability that none of the true best was missed.
        """
        if k > MAX_RESULTS:
            raise ToolError(f"k: expected at most {MAX_RESULTS}, found {k}")
        with one, told():
            result = index.search(
                _query(prompt, completion, messages, contrast),
                k=k,
                where=where,
                negative=negative,
                exact=exact,
                hits="document",
            )
        return result_record(result)

    @server.tool()
    def explain(
        document_id: str,
        prompt: str | None = None,
        completion: str | None = None,
        messages: list[dict[str, Any]] | None = None,
        contrast: str | None = None,
    ) -> dict[str, Any]:
        """Return the exact influence of a document on a completion: by token, strongest first, and by layer group.

        Args:
            document_id: Id of a document that search returned.
            prompt: As in search.
            completion: As in search.
            messages: As in search.
            contrast: As in search.
        """
        with one, told():
            explanation = index.explain(document_id, _query(prompt, completion, messages, contrast))
        tokens = [token for part in explanation.parts for token in part.tokens]
        strongest = sorted(tokens, key=lambda token: -abs(token.influence))[:MAX_RESULTS]
        return {
            "document_id": document_id,
            "influence": explanation.influence,
            "tokens": [{"text": token.text, "influence": token.influence} for token in strongest],
            "layer_groups": explanation.groups,
            "notes": list(explanation.notes),
        }

    return server


def _query(
    prompt: str | None, completion: str | None, messages: list[dict[str, Any]] | None, contrast: str | None
) -> Query:
    fields = {"prompt": prompt, "completion": completion, "messages": messages, "contrast": contrast}
    return read_query(fields, "query")
