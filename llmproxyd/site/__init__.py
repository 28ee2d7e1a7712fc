"""The public resource tree.
"""
