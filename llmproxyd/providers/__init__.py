"""What each LLM provider speaks: one file a provider, pure.

``base`` holds the vocabulary (endpoints, errors, stream forms), ``registry`` finds the
files, ``detect`` recognises whose API a request speaks.  Nothing here does I/O or knows
of upstreams, configuration or operators.
"""
