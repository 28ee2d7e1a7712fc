"""Rehearsed failure, pure: text to command, rules, the choice, the rendered answer.

Clock and randomness are passed in; nothing here does I/O.
"""
