"""Fetching and encoding as two steps: the records of one step, whatever is repeated or interrupted between them."""

from __future__ import annotations

import itertools
from pathlib import Path

import apache_beam as beam
import pytest

from models.errors import UserError
from models.tokenizers.image import load_image_tokenizer
from pipeline import encode_units
from pipeline.encode_units import EncodePrepared, EncodeUnits, FetchAndEncode, FetchPrepared, PreparedUnit, UnitJob
from pipeline.fetch.units import Unit
from pipeline.images.validate import ImageConfig
from pipeline.output.names import PREPARED_FOLDER, WORK_FOLDER
from pipeline.records import REJECTED_TAG, Rejected
from pipeline.tokenize_stage import EncodeConfig
from tests.support.fetching import QUICK, pair
from tests.support.transforms import apply

NAMES = ["bison.jpg", "arcdetriomphe.webp", "lemon.png", "hedgehog.jpg"]
HINTS = {"accelerator": "type:any;count:1"}


@pytest.fixture
def unit(server) -> Unit:
    urls = [*(f"{server.url}/images/{name}" for name in NAMES), f"{server.url}/none.jpg", "http://127.0.0.1:1/"]
    return Unit(3, 10, sorted(map(pair, urls), key=lambda pair: pair.key))


@pytest.fixture
def config(tiny_dvae) -> EncodeConfig:
    return EncodeConfig(tiny_dvae, draws=2, with_signatures=True)


def job(output: Path, config: EncodeConfig) -> UnitJob:
    image_size = load_image_tokenizer(config.image_tokenizer).info.image_size
    return UnitJob(output=str(output), fetch=QUICK, image=ImageConfig(), encode=config, image_size=image_size)


def fetch(unit: Unit, output: Path, config: EncodeConfig) -> PreparedUnit:
    step = FetchPrepared(job(output, config))
    step.setup()
    step.start_bundle()
    [reference] = itertools.chain(step.process(unit), (value.value for value in step.finish_bundle()))
    return reference


def encode(prepared: PreparedUnit, output: Path, config: EncodeConfig) -> list:
    step = EncodePrepared(str(output), config)
    step.setup()
    return [getattr(each, "value", each) for each in step.process(prepared)]


def at_once(unit: Unit, output: Path, config: EncodeConfig) -> list:
    step = FetchAndEncode(job(output, config))
    step.setup()
    return [getattr(each, "value", each) for each in step.process(unit)]


def plain(rows: list) -> list:
    """Rows whose sequences are lists, as those that were stored."""
    return [row if isinstance(row, Rejected) else row._replace(other_captions=list(row.other_captions)) for row in rows]


def waiting(output: Path) -> list[Path]:
    return list((output / WORK_FOLDER / PREPARED_FOLDER).glob("*"))


def test_two_steps_give_the_records_of_one(unit, config, tmp_path):
    """And no image stays."""
    expected = plain(at_once(unit, tmp_path / "one", config))
    assert sum(isinstance(row, Rejected) for row in expected) == 2
    prepared = fetch(unit, tmp_path / "two", config)
    assert len(prepared.keys) == 16 * len(unit.pairs) and len(waiting(tmp_path / "two")) == 1
    assert encode(prepared, tmp_path / "two", config) == expected
    assert waiting(tmp_path / "two") == []
    assert encode(prepared, tmp_path / "two", config) == expected, "a bundle that is repeated"


def test_what_was_fetched_is_not_fetched_again(unit, config, tmp_path, monkeypatch):
    """But what failed for a transient reason, once the unit is encoded."""
    tried = []

    def counting(pairs, *arguments, **options):
        tried.append([pair.url for pair in pairs])
        return fetch_images(pairs, *arguments, **options)

    fetch_images = encode_units.fetch_images
    monkeypatch.setattr(encode_units, "fetch_images", counting)
    prepared = fetch(unit, tmp_path, config)
    assert fetch(unit, tmp_path, config) == prepared and len(tried) == 1
    expected = encode(prepared, tmp_path, config)
    again = fetch(unit, tmp_path, config)
    assert tried[1:] == [["http://127.0.0.1:1/"]]
    assert encode(again, tmp_path, config) == expected and not waiting(tmp_path)


def test_a_unit_that_is_encoded_has_nothing_to_fetch(unit, config, tmp_path):
    unit = unit._replace(pairs=[pair for pair in unit.pairs if pair.url != "http://127.0.0.1:1/"])
    expected = encode(fetch(unit, tmp_path, config), tmp_path, config)
    again = fetch(unit, tmp_path, config)
    assert again.path == "" and encode(again, tmp_path, config) == expected


def test_images_that_someone_deleted(unit, config, tmp_path):
    prepared = fetch(unit, tmp_path, config)
    waiting(tmp_path)[0].unlink()
    with pytest.raises(UserError, match=r"6 images that were fetched are not there any more; run the same command"):
        encode(prepared, tmp_path, config)


def test_only_the_model_s_step_has_the_hints(unit, config, tmp_path):
    transform = EncodeUnits(job(tmp_path, config), HINTS)
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([unit]) | "Build" >> transform
    graph = pipeline.to_runner_api()
    hinted = {
        step.unique_name
        for step in graph.components.transforms.values()
        if graph.components.environments[step.environment_id].resource_hints and not step.subtransforms
    }
    assert hinted == {"Build/Encode/ParDo(EncodePrepared)"}


def test_the_transform_as_a_whole(unit, config, tmp_path):
    one, two = (apply(EncodeUnits(job(tmp_path / str(len(hints)), config), hints), [unit]) for hints in ({}, HINTS))
    assert plain(one["records"]) == plain(two["records"]) and len(one["records"]) == 4
    assert one[REJECTED_TAG] == two[REJECTED_TAG]
