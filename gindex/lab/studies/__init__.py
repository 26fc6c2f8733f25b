"""Studies of influence that were published, on an index of the reader's own model and corpus.

Each module is one study, a function from an index to a `Report`: numbers as plain values, and a page that shows them.
"""
