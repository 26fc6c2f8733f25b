"""Studies of an index: what the literature asked of influence, asked of the reader's own model and corpus.

Each module is one study, a function from an index to a `Report`: numbers as plain values, and a page that shows them.
"""
