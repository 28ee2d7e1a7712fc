"""Recorded exchanges: the files that they are, and which of them answers a request.

Nothing here talks to anybody or waits: senders that record and replay are in the pipeline.
"""
