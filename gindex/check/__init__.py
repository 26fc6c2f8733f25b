"""A model tried before it is built on: what a build would see of it, whether that is right, and what it costs."""
