"""The table of documents: schema, writing, reading, filters, words, checksums."""
