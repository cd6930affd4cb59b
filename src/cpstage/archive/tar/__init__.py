"""Tar (POSIX.1 pax, and GNU's extensions) and tar.gz (RFC 1952): read and written as streams."""
