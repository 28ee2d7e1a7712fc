"""Parts of HTTP that are plain data: header lists, URLs, event framing.  Pure."""
