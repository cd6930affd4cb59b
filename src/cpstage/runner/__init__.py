"""A command between fetch and push: its environment, its signals, and what becomes of it."""
