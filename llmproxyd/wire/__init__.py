"""HTTP/1.0 and 1.1 on Twisted transports, both sides read by llhttp.  No policy, no configuration.

The server's side: ``site`` has the clients, ``channel`` is the connection of one; ``head``, ``chunks``
and ``body`` take a request apart, ``request`` shows it to resources of twisted.web, ``outgoing``
writes the answer.  The client's side: ``agent`` sends requests, ``headers`` encodes one, ``call`` is one
under way; ``pool`` keeps each ``connection`` that ``connect``, ``race`` and ``origin`` have made, ``answer``
reads what comes back and ``response`` hands it on.  Below both: ``transport`` and ``reactor`` (with
``request``, all that is used of Twisted's inner parts), ``wheel`` (deadlines), ``fields`` (names that
frame a message), ``tls``.
"""
