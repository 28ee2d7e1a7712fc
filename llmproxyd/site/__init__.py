"""The public resource tree."""
