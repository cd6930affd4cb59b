"""AWS, by boto3.

Every call to CodePipeline, S3, KMS and STS is one of a boto3 client. This package has what botocore
does not do: credentials of a job that refresh themselves, a time limit that counts from the last
progress, bodies that are resumed, answers that are checked, and connections that end at once. ::

    config (Connection: the caller's settings)
      ├──▶ sessions (boto3 sessions and clients) ──▶ connections (their sockets)
      └──▶ client (one call: retried, refreshed, checked, logged)
             ├──▶ credentials (of a job)
             ├──▶ retries (when, how often, until when)
             └──▶ errors (what botocore raises, and what that means to a user)

    codepipeline (the job API) and s3 (operations on objects) call through client.
"""
