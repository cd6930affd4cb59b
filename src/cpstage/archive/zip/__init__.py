"""Zip (PKWARE APPNOTE 6.3.10): read by its directory, written as a stream."""
