"""The workspace: layout, lock, publishing by rename, and what killed processes left."""
