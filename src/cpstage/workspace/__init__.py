"""The workspace: its layout, its lock, hidden staging, and publishing by rename."""
