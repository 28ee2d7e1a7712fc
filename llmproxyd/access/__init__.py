"""Who may do what, as pure decisions: tokens, projects, allowlists, limits.  No I/O, no clock."""
