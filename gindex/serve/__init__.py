"""The HTTP service: indexes, a queue that batches requests, routes, and the page."""
