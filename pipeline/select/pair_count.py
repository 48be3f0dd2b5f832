"""The number of pairs that a selection will have, before any of them is read: what divides them into units."""

from __future__ import annotations

import apache_beam as beam

from pipeline.select.stage import HashPartition, PlanPartitions, RangeResult, groups_of_partition


class CountPairs(beam.PTransform):
    """RangeResults -> numbers of pairs, whose sum is the number of those that `SelectedRows` gives."""

    def __init__(self, output: str, rows_per_file: int):
        self._output, self._rows_per_file = output, rows_per_file

    def expand(self, results):
        return (
            results
            | "Plan" >> PlanPartitions(self._rows_per_file)
            | "Count" >> beam.Map(count_pairs, beam.pvalue.AsList(results), self._output).with_output_types(int)
        )


def count_pairs(partition: HashPartition, results: list[RangeResult], output: str) -> int:
    """The number of pairs in a partition."""
    counts = groups_of_partition(partition, results, output).counts
    return sum(number for (_, reason), number in counts.items() if not reason)
