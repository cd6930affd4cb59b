"""Artifacts looked into where they are: listed, read in part, compared with what was fetched."""
