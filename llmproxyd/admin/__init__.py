"""The admin listener: its resources and who may use them; and ``llmproxyctl``, its client."""
