"""Search: hits, the exhaustive scan, the FAISS index, the funnel, and the exact re-rank."""
