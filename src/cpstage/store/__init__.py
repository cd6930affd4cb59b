"""S3: objects opened for ranged reads, streams uploaded under the job's key, sums compared."""
