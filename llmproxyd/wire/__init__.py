"""HTTP on Twisted transports."""
