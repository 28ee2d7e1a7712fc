"""A stand-in for every provider, on a loopback port of its own.
"""
