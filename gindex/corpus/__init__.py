"""Documents in: sources, readers, records, tokens, parts, batches."""
