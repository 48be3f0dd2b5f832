"""What the tests remember of Beam is what Beam says by itself, and no job changes another one's."""

from __future__ import annotations

from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions, WorkerOptions

FLAGS = ["--experiments=one", "--direct_num_workers=3"]


def test_views_of_options():
    for _ in range(2):
        options = PipelineOptions(FLAGS, num_workers=7)
        assert options.view_as(DirectOptions).direct_num_workers == 3
        assert options.view_as(WorkerOptions).num_workers == 7  # given beside the flags
        assert options.view_as(DebugOptions).experiments == ["one"]
        options.view_as(DebugOptions).add_experiment("two")
        options.view_as(DirectOptions).direct_num_workers = 4
        assert options.view_as(DebugOptions).experiments == ["one", "two"]
        assert options.view_as(DirectOptions).direct_num_workers == 4


def test_parts_of_options_given_by_flags_and_by_name():
    assert DirectOptions(FLAGS).direct_num_workers == 3
    assert DirectOptions(FLAGS, direct_num_workers=5).direct_num_workers == 5
    assert DirectOptions([]).direct_num_workers == DirectOptions(FLAGS[:1]).direct_num_workers == 1
