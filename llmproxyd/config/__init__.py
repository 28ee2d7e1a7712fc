"""From files, environment and command line to one frozen ``Config``."""
