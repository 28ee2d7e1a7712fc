"""Where events leave the house: files, webhooks, Redis streams, each behind a queue of its own."""
