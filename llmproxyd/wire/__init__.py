"""HTTP on Twisted transports.
"""
