"""Policies that absorb failure, pure: clock and randomness are passed in."""
