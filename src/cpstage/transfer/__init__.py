"""Fetch, push, pack and unpack: inputs from S3 into staging, outputs to S3, local archives."""
