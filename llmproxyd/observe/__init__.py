"""Where events become log lines.  Steps emit; nothing here is read back by a request."""
