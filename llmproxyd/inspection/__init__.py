"""Bounded readers of copies of what passes by.  They can neither change nor delay a byte."""
