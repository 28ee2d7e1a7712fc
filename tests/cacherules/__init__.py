"""The rules of RFC 9111 as a table of transcripts, and what plays them against any backend.

``CASES`` of :mod:`cacherules.cases` holds them, ``play`` of :mod:`cacherules.harness` plays one.
A test module that uses them puts the folder ``tests`` on its path.
"""
