"""The operator's language: one table of verbs that is parsed, completed and explained.  Pure."""
