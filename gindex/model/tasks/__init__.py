"""What models are trained to do: how each task checks a model, reads documents and queries, and runs a batch."""
