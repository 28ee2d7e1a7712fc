"""Who may do what, as pure decisions.  No I/O, no clock, no random of its own.

``projects`` holds the nouns and says whether a token is good; ``tokens`` makes and recognises
tokens, ``presented`` finds the one that a client sent.  ``allowlist`` holds requests against what
may be asked, with ``paths`` (as an upstream may read them), ``values`` (globs), ``bodies`` (members
of JSON bodies) and ``forms`` (queries and forms).  ``cors`` answers browsers, ``buckets`` counts.
"""
