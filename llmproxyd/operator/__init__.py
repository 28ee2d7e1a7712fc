"""Consoles of the operator.  Each only translates into ``control``; imported when switched on."""
