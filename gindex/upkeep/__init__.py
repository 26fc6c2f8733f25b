"""Looking after an index, without its model: delete, compact, versions, prune, verify, repair."""
