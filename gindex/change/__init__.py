"""What changes a finished index or looks after it: add, delete, compact, reindex, history, verify, repair."""
