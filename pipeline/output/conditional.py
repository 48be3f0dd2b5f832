"""A file that is written only if nobody else has written it in the meantime."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

from pipeline.output import files

SETTLE_S = 5.0
"""In which another launcher's write, begun at the same moment, has ended."""


class Content(NamedTuple):
    """The bytes of a file, and what the store calls this version of it."""

    data: bytes
    version: str


class ConditionalFile:
    """On a file system without conditional writes (hdfs://, stores that lack S3's conditions): a write is followed by
    SETTLE_S of waiting and by reading what is there. Of two at once the last one wins, unless one takes longer."""

    def __init__(self, path: str):
        self.path = path

    def read(self) -> Content | None:
        """What the file holds, or None if there is no such file."""
        if not files.exists(self.path):
            return None
        data = files.read(self.path)
        return Content(data, hashlib.sha256(data).hexdigest())

    def write(self, data: bytes, version: str | None) -> str | None:
        """Replaces a version, or creates the file if it is None. Returns the new version, or None if the file has
        another one than that."""
        if _version(self.read()) != version:
            return None
        files.write_atomically(self.path, data)
        time.sleep(SETTLE_S)
        found = self.read()
        return found.version if found and found.data == data else None


class _LocalFile(ConditionalFile):
    """By a hard link, which a file system refuses for a name that exists. Creates files only."""

    def write(self, data: bytes, version: str | None) -> str | None:
        temporary = f"{self.path}.{uuid.uuid4().hex}{files.TEMPORARY_SUFFIX}"
        files.write_atomically(temporary, data)
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return None
        except OSError:  # no hard links: a folder of a network, perhaps
            return super().write(data, version)
        finally:
            os.remove(temporary)
        return _version(self.read())


class _S3File(ConditionalFile):
    """By the conditions If-None-Match and If-Match of PutObject."""

    def __init__(self, path: str):
        from apache_beam.io.aws.s3io import S3IO, parse_s3_path  # only needed for s3://

        super().__init__(path)
        self._client = S3IO(options=FileSystems._pipeline_options).client.client
        bucket, key = parse_s3_path(path)
        self._place = {"Bucket": bucket, "Key": key}

    def read(self) -> Content | None:
        try:
            found = self._client.get_object(**self._place)
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return Content(found["Body"].read(), found["ETag"])

    def write(self, data: bytes, version: str | None) -> str | None:
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        try:
            return self._client.put_object(**self._place, Body=data, **condition)["ETag"]
        except self._client.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "NotImplemented":
                return super().write(data, version)
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                return None
            raise


class _GoogleFile(ConditionalFile):
    """By the condition ifGenerationMatch of an upload."""

    def __init__(self, path: str):
        from apache_beam.io.gcp.gcsio import GcsIO, parse_gcs_path  # only needed for gs://

        super().__init__(path)
        bucket, self._name = parse_gcs_path(path)
        self._bucket = GcsIO(pipeline_options=FileSystems._pipeline_options).client.bucket(bucket)

    def read(self) -> Content | None:
        if (blob := self._bucket.get_blob(self._name)) is None:
            return None
        version = str(blob.generation)  # data may be newer: then the next write fails, as it should
        return Content(blob.download_as_bytes(), version)

    def write(self, data: bytes, version: str | None) -> str | None:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket.blob(self._name)
        try:
            blob.upload_from_string(data, if_generation_match=int(version or 0))
        except PreconditionFailed:
            return None
        return str(blob.generation)


def _version(content: Content | None) -> str | None:
    return content.version if content else None


def conditional_file(path: str) -> ConditionalFile:
    kinds: dict[str | None, type[ConditionalFile]] = {None: _LocalFile, "s3": _S3File, "gs": _GoogleFile}
    kind = kinds.get(FileSystems.get_scheme(path), ConditionalFile)
    return kind(path)
