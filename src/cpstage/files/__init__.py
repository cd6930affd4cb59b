"""The same safe unpacker and fast packer between local files, without a job.

KMS, where an envelope needs it, is asked with the caller's own credentials.
"""
