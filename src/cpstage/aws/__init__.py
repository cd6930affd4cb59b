"""AWS through boto3 clients: CodePipeline, S3, KMS and STS.

This package adds what botocore lacks: job credentials that refresh themselves, a time limit since
the last progress, resumed bodies, checked answers, and requests that can be interrupted. ::

    config (AwsConfig: the caller's settings)
      ├──▶ sessions (boto3 sessions, clients and connections)
      └──▶ client (one call: retried, checked, logged; the few kinds of its errors)
             └──▶ errors (the kind of what botocore raises; the exit code and hint of each)

    codepipeline (the job API) and s3 (operations on objects) call through client;
    job_session and uploads read and upload a job's artifacts through s3, with the job's
    credentials, which refresh themselves;
    executions reads past executions through codepipeline.
"""
