"""Pages of one file: nothing loaded from elsewhere, no script, light and dark as the reader's system is."""

from html import escape

PALETTE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --soft: #f6f8fa; --line: #d0d7de; --faint: #59636e;
        --positive: 46, 160, 67; --negative: 218, 54, 51;
        --one: #0969da; --two: #bc4c00; --three: #1a7f37; --four: #8250df }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --soft: #161b22; --line: #3d444d; --faint: #9198a1;
          --positive: 35, 134, 54; --negative: 190, 50, 48;
          --one: #58a6ff; --two: #f0883e; --three: #3fb950; --four: #bc8cff }
}
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
       background: var(--paper) }
h1 { font-size: 1.3rem; overflow-wrap: anywhere } h2 { font-size: 1rem; margin: 2rem 0 .5rem }
"""
"""Colours by their use, in light and dark, and the layout of text."""


def html_page(title: str, style: str, body: str) -> str:
    """Return a page.

    Args:
        title: Plain text; escaped here.
        style: CSS that follows the palette.
        body: HTML, escaped by the caller.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{PALETTE}{style}</style></head><body>
{body}</body></html>
"""
