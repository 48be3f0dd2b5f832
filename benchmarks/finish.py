"""The end of a build on an object store: requests and seconds from the last shard to the finished output.

    python -m benchmarks.finish [--units N] [--shards N] [--delay-ms MS] [--at-once N]

The store is `benchmarks.object_store`, in a process of its own: S3's interface, with a delay added to each request. The
output holds what a build of that many units leaves when its last shard is written; then the build's own last step runs,
and the launcher's clean-up. It needs S3's client: `make peers`.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.object_store import ObjectStore, serving
from models.data.format import MANIFEST_FILE, index_path
from models.text_table import table
from models.tokenizers.info import ImageTokenizerInfo, TextTokenizerInfo, square
from pipeline.dataset.finish import ManifestFields, finish_dataset
from pipeline.dataset.shards import WrittenShard
from pipeline.output import files, stores
from pipeline.output.files import WrittenFile
from pipeline.output.state import finish_output, prepare_output

OUTPUT = "s3://bucket/out"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=250_000)
    parser.add_argument("--shards", type=int, default=2_500)
    parser.add_argument("--delay-ms", type=float, default=25.0, help="added to each request")
    parser.add_argument("--at-once", type=int, default=stores.REQUESTS_AT_ONCE, help="requests that delete files")
    args = parser.parse_args()
    stores.REQUESTS_AT_ONCE = args.at_once
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, args.units, args.shards, args.delay_ms / 1000), daemon=True
    )
    server.start()
    logging.getLogger().setLevel(logging.ERROR)  # as of the command
    connect(ours.recv())
    prepare_output(OUTPUT, "build", {}, MANIFEST_FILE, overwrite=False)
    ours.send("counts")
    ours.recv()
    started, processor_s = time.monotonic(), -time.process_time()
    finish_dataset(OUTPUT, fields(), shards(args.shards), [], [(("cc12m", "read", ""), 1), (("cc12m", "kept", ""), 1)])
    manifest_s = time.monotonic() - started
    finish_output(OUTPUT)
    total_s = time.monotonic() - started
    processor_s += time.process_time()
    ours.send("counts")
    requests = ours.recv()
    left = [name for name in files.list_files(OUTPUT) if name.startswith("_work/")]
    assert not left, left[:3]
    ours.send("")
    print(table(["request", "number"], [[what, f"{number:,}"] for what, number in sorted(requests.items())]))
    print(f"{args.units:,} units, {args.shards:,} shards, {args.delay_ms:g} ms a request, {args.at_once} at once:")
    print(f"{sum(requests.values()):,} requests, {manifest_s:.0f} s to the manifest, {total_s:.0f} s to the end")
    print(f"{processor_s:.0f} s of this process's processor time")
    return 0


def serve(pipe: Connection, units: int, shards: int, delay_s: float) -> None:
    """Serves the output; for each message it answers with the requests since the one before."""
    store = ObjectStore(delay_s)
    store.objects["out/_work/settings.json"] = files.to_json({"job": "build", "settings": {}})
    for number in range(units):
        store.objects[f"out/_work/units/{number:05d}-of-{units:05d}.msgpack"] = b"x"
    for shard in shard_names(shards):
        store.objects[f"out/{shard}"] = store.objects[f"out/{index_path(shard)}"] = b"x"
    with serving(store) as address:
        pipe.send(address)
        while pipe.recv():
            pipe.send(dict(store.requests))
            store.requests.clear()


def connect(address: str) -> None:
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    FileSystems.set_options(PipelineOptions([]))


def shard_names(number: int) -> list[str]:
    return [f"train/{shard:05d}-of-{number:05d}.tar" for shard in range(number)]


def shards(number: int) -> list[WrittenShard]:
    return [
        WrittenShard(path, "train", 1, 1, "0" * 64, {"cc12m": 1}, {"": 1}, WrittenFile(index_path(path), 1, "0" * 64))
        for path in shard_names(number)
    ]


def fields() -> ManifestFields:
    images = ImageTokenizerInfo("bundled", "0" * 64, vocabulary=1024, shape=square(16), image_size=128)
    text = TextTokenizerInfo("0" * 64, vocabulary=16384, max_tokens=64)
    return ManifestFields(images, text, "{}", 1, {}, {}, ("cc12m",))


if __name__ == "__main__":
    raise SystemExit(main())
