"""Documents in: sources are read, tokenised, cut into parts, kept in a table and batched."""
