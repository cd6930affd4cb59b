"""A command between fetch and push: its environment, signals and result."""
