"""The result of a job: what may be said of it, and how it is put."""
