"""Changes to requests that were asked for; every other byte stays as it is.  Pure."""
