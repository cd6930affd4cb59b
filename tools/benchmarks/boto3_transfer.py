"""What one would write in a few lines with boto3 and `zipfile`: one of the measured peers.

It runs in a separate venv, which has boto3 and lacks cpstage.
"""

import argparse
import os
import zipfile
from pathlib import Path


def download(bucket: str, key: str, archive: Path) -> None:
    import boto3

    boto3.client("s3").download_file(bucket, key, str(archive))


def download_with_crt(bucket: str, key: str, archive: Path) -> None:
    """Download with awscrt, by the layer below boto3, which would insist on TLS."""
    from botocore.session import Session
    from s3transfer import crt

    session = Session()
    region = session.get_config_variable("region")
    credentials = crt.BotocoreCRTCredentialsWrapper(session.get_credentials())
    client = crt.create_s3_crt_client(
        region, credentials.to_crt_credentials_provider(), use_ssl=False
    )
    serializer = crt.BotocoreCRTRequestSerializer(session, {"region_name": region})
    with crt.CRTTransferManager(client, serializer) as manager:
        manager.download(bucket, key, str(archive)).result()


def unpack(archive: Path, tree: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tree)


def pack(directory: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as opened:
        for parent, directories, names in os.walk(directory):
            for name in directories + names:
                path = Path(parent, name)
                opened.write(path, path.relative_to(directory))


def upload(archive: Path, bucket: str, key: str, key_arn: str) -> None:
    import boto3

    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_arn}
    boto3.client("s3").upload_file(str(archive), bucket, key, ExtraArgs=encryption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["fetch", "push"])
    parser.add_argument("bucket")
    parser.add_argument("key")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kms-key-id", default="")
    parser.add_argument("--crt", action="store_true", help="download with awscrt")
    options = parser.parse_args()
    archive = Path("artifact.zip")
    if options.action == "fetch":
        (download_with_crt if options.crt else download)(options.bucket, options.key, archive)
        unpack(archive, options.directory)
    else:
        pack(options.directory, archive)
        upload(archive, options.bucket, options.key, options.kms_key_id)


if __name__ == "__main__":
    main()
