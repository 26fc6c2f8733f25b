"""The HTTP service: indexes, queues that batch requests, routes, keys and hosts, and the page."""
