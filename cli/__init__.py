"""The `gindex` command: parse, call, print."""
