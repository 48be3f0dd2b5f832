"""One dataset, byte for byte, by Prism and by the local runner with any number of workers and with repeated bundles."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("hints", [[], ["--encode-min-ram=1GB"]], ids=["at once", "in two steps"])
def test_prism_builds_the_same_dataset(hints, prism_port, build, built, exhaustive):
    """Through the job service, as on Flink, Spark and Dataflow."""
    if hints and not exhaustive:
        pytest.skip("only with --exhaustive: tests/jobs/test_encode_units.py has both steps, without an engine")
    prism = ["--runner=PortableRunner", f"--job_endpoint=localhost:{prism_port}", "--environment_type=LOOPBACK"]
    assert build(*prism, *hints) == built
    assert len([name for name in built if name.endswith(".tar")]) > 3


@pytest.mark.parametrize(
    "options",
    [
        ["--direct_num_workers=2"],
        ["--direct_num_workers=4"],
        ["--direct_num_workers=1", "--direct_runner_bundle_repeat=2"],
    ],
    ids=" ".join,
)
def test_the_local_runner_builds_the_same_dataset(options, build, built, exhaustive):
    if not exhaustive:
        pytest.skip("only with --exhaustive: end_to_end/test_build.py has two processes, and repeated bundles")
    assert build(*options) == built
