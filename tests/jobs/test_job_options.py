"""Views of a job's options are parsed once, and say what Beam's own would say at any moment."""

from __future__ import annotations

import argparse
import copy
import pickle

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    WorkerOptions,
)

from beam_jobs.flags.common import JobOptions

FLAGS = ["--experiments=one", "--direct_num_workers=3"]


def values(options: PipelineOptions) -> tuple[int, int | None, list[str]]:
    return (
        options.view_as(DirectOptions).direct_num_workers,
        options.view_as(WorkerOptions).num_workers,
        options.view_as(DebugOptions).experiments,
    )


@pytest.mark.parametrize("kind", [PipelineOptions, JobOptions])
def test_views_share_their_values(kind):
    options = kind(FLAGS, num_workers=7)
    assert values(options) == (3, 7, ["one"])  # by flag, by name, by flag
    options.view_as(DebugOptions).add_experiment("two")
    options.view_as(DirectOptions).direct_num_workers = 4
    assert values(options) == (4, 7, ["one", "two"])
    assert options.get_all_options()["direct_num_workers"] == 4
    assert values(kind(FLAGS)) == (3, None, ["one"])  # another job's


@pytest.mark.parametrize("kind", [PipelineOptions, JobOptions])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda options: pickle.loads(pickle.dumps(options))])
def test_a_copy_is_by_itself(kind, copied):
    options = kind([*FLAGS, "--impersonate_service_account=me"])
    assert values(options) == (3, None, ["one"])
    assert options.view_as(GoogleCloudOptions).impersonate_service_account == "me"
    other = copied(options)
    assert other.view_as(GoogleCloudOptions).impersonate_service_account is None  # Beam keeps it from workers
    options.view_as(DirectOptions).direct_num_workers = 4
    other.view_as(DebugOptions).add_experiment("two")
    other.view_as(DirectOptions).direct_num_workers = 5
    assert values(options) == (4, None, ["one"]) and values(other) == (5, None, ["one", "two"])
    assert other.get_all_options()["direct_num_workers"] == 5  # the copy's, not that of one of its views


def test_a_view_is_parsed_once(monkeypatch):
    options = JobOptions(FLAGS)
    assert values(options) == (3, None, ["one"])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", None)
    assert values(options) == (3, None, ["one"])
