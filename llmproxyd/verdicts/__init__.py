"""What clients do after a failure, and what that proves of them, pure.

Requests and how they ended come in (``book``), verdicts come out.  Clocks are passed in, in monotonic
seconds.  A verdict rests on the requests that prove it; what can have another cause is left open.
"""
