"""Known ways to smuggle a request, changed at random, against the whole proxy.

``python -m tests.fuzz --help`` runs as many as are wanted; ``tests/integration/test_fuzz.py`` runs a few.
"""
