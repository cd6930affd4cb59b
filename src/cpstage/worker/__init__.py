"""A job worker: what claims jobs, what becomes of each, and how it tells that it is well."""
