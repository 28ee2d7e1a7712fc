"""One Redis server: where it is, connections to it, calls that are bounded in time.

What is kept there, and under which keys, is the business of those who call.
"""
