"""The admin listener's resources, and the command-line client that talks to them."""
