"""HTTP/1.0 and 1.1 on Twisted transports, both sides read by llhttp.  No policy, no configuration.

``channel`` is a client's connection: ``head``, ``chunks`` and ``body`` take a request apart,
``request`` shows it to resources of twisted.web, ``outgoing`` writes the answer.  ``agent`` sends
requests: ``headers`` encodes one, ``call`` is one under way, ``pool`` keeps each ``connection`` that
``connect``, ``race`` and ``origin`` have made, ``answer`` reads what comes back and ``response`` hands it on.
Below both: ``transport`` and ``reactor`` (all that is used of Twisted's inner parts), ``wheel``
(deadlines), ``fields`` (names that frame a message), ``tls``.
"""
