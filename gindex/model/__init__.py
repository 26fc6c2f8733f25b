"""The model side: loading, tracked layers, losses and the only hooks."""
