"""The table of documents: schema, filling, filters, words, checksums."""
