"""The index on disk: layout, manifest, factors, vectors. The format is described in docs/format.md."""
