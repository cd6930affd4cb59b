"""Artifacts on their way: inputs from S3 into staging, outputs from a directory to S3."""
