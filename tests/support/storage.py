"""An object storage on this machine that speaks S3."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_tools import remote

BUCKET = "robots"


@contextmanager
def storage(tmp_path: Path) -> Iterator[Any]:
    """Yield a boto3 client of an empty bucket; commands within find it, and a cache of their own."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        values = {"ACCESS_KEY_ID": "testing", "SECRET_ACCESS_KEY": "testing", "DEFAULT_REGION": "us-east-1"}
        values |= {"ENDPOINT_URL": f"http://{host}:{port}", "CONFIG_FILE": "none"}
        values["SHARED_CREDENTIALS_FILE"] = "none"
        for name, value in values.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv(remote.CACHE, str(tmp_path / "cache"))
        patch.delenv(remote.CACHE_GB, raising=False)
        patch.delenv("AWS_PROFILE", raising=False)
        remote._downloader.cache_clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        try:
            yield client
        finally:
            remote._downloader.cache_clear()
            server.stop()


def upload(client: Any, folder: Path, prefix: str) -> str:
    """Upload a data root as any tool does, and return its address."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")
    return f"s3://{BUCKET}/{prefix}"


def chunks_in_cache(cache: Path) -> list[Path]:
    """Return the chunks that are in a cache."""
    return sorted(cache.rglob(remote.CHUNKS))
