"""Changes to requests that were asked for; every other byte stays as it is.  Pure.

``rules`` declares them, ``body`` changes JSON bodies, ``paths`` the path.  A transform repairs what
an upstream does not understand; it is no guard: what it cannot read passes as it is.
"""
