"""A command between fetch and push: its environment, files, processes, signals and result."""
