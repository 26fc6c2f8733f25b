"""FAISS and the sieve: what gives candidates, and nothing else."""
