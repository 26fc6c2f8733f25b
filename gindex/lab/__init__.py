"""The laboratory: what measures and compares, and what the product works without."""
