"""Rate limits as token buckets: the interface, in memory for one host, in Redis for all."""
