"""The stand-in for every provider: an upstream of our own on a loopback port.

It answers in the wire format of whichever provider it is asked as, deterministically, by
echoing the last user message, so that a client can be tried without a key and without a cost.
``site`` and ``writer`` touch the network; ``routes`` says which path means what; all the rest
is pure: a module for each dialect turns a request's body into a :class:`~.reply.Prompt`, and
the neutral :class:`~.reply.Reply` to it into a JSON value or a series of stream events.

It may use providers, http, model, units and errors, and knows nothing of the proxy above.
"""
