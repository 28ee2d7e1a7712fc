"""What an operator can do, one method a verb, shared by every edge: consoles, admin API, library."""
