"""AWS Encryption SDK messages: artifacts that are encrypted on the client, under KMS keys."""
