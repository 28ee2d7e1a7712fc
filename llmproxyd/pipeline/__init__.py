"""The way of one request: ``run`` is its table of contents."""
