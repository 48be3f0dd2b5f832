"""`pairmill fetch` as a whole: run again, killed, and by several processes that share a host."""

from __future__ import annotations

import collections
import json
import random
import signal
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_jobs import encode_shards, fetch_images
from models.errors import UserError
from tests.support.fetching import pair, write_pairs
from tests.support.hostile import HostileServer
from tests.support.narrowing import required
from tests.support.paths import files_of

OPTIONS = ["--allow-address=127.0.0.0/8", "--per-host-connections=64", "--per-host-rate=10000", "--retries=0"]


@pytest.fixture
def web() -> Iterator[HostileServer]:
    """A server with an empty log."""
    with HostileServer() as running:
        yield running


def fetch(pairs: Path, output: Path, *options: str) -> None:
    arguments = [f"--pairs={pairs}", f"--output={output}", "--direct_num_workers=1", *OPTIONS, *options]
    assert fetch_images.main(arguments) == 0


def keys_in_tars(output: Path) -> collections.Counter[str]:
    found: collections.Counter[str] = collections.Counter()
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            members = [tar.extractfile(info) for info in tar if info.name.endswith("json")]
            found.update(json.load(required(member))["pair_key"] for member in members)
    return found


def ledger(output: Path) -> dict:
    return json.loads((output / "ledger.json").read_bytes())["sources"]["test"]


def test_a_second_run_asks_only_for_what_failed_in_passing(web, tmp_path, capsys, exhaustive):
    rows, units = (2000, 7) if exhaustive else (200, 4)
    passing, per_unit = rows * 3 // 10, f"--pairs-per-unit={-(-rows // units)}"
    paths = [f"{'unavailable_once' if n % 10 < 3 else 'plain'}/{n}" for n in range(rows)]
    pairs = [pair(web.url(path)) for path in paths]
    write_pairs(tmp_path / "pairs", pairs)
    fetch(tmp_path / "pairs", tmp_path / "images", per_unit)
    assert ledger(tmp_path / "images") == {
        "read": rows,
        "kept": rows - passing,
        "rejected": {"fetch": {"http_5xx": passing}},
    }
    assert len(web.log) == rows
    first = files_of(tmp_path / "images")

    fetch(tmp_path / "pairs", tmp_path / "images", per_unit, "--attempts=1")
    assert f"{passing} rows failed for a transient reason, after 1 runs: nothing to do" in capsys.readouterr().out
    assert len(web.log) == rows
    fetch(tmp_path / "pairs", tmp_path / "images", per_unit)
    asked = [request.path for request in web.log[rows:]]
    assert sorted(asked) == sorted(path for path in paths if path.startswith("unavailable_once"))
    assert ledger(tmp_path / "images") == {"read": rows, "kept": rows, "rejected": {}}
    second = files_of(tmp_path / "images")
    assert sorted(name for name in second if name.endswith(".tar")) == [f"{n:05d}.tar" for n in range(2 * units)]
    shards = {name: data for name, data in first.items() if name[:5].isdigit()}
    assert len(shards) == 3 * units
    assert shards.items() <= second.items()  # what was finished is left alone
    assert keys_in_tars(tmp_path / "images") == dict.fromkeys((one.key for one in pairs), 1)

    fetch(tmp_path / "pairs", tmp_path / "images", per_unit)
    assert "nothing to do" in capsys.readouterr().out
    assert len(web.log) == rows + passing


def test_a_dataset_grows_with_a_second_run(web, tiny_dvae, tmp_path):
    """What `encode --add-to` makes of the additional shards is what encoding all at once gives."""
    paths = [f"{'unavailable_once' if n % 3 == 0 else 'plain'}/{n}" for n in range(12)]
    pairs = [pair(web.url(path))._replace(caption=f"a cat, number {n}") for n, path in enumerate(paths)]
    write_pairs(tmp_path / "pairs", pairs)
    images, old, both, whole = (tmp_path / name for name in ("images", "old", "both", "whole"))
    options = [
        f"--images={images}/*.tar",
        f"--image-tokenizer={tiny_dvae}",
        "--text-tokenizer=bundled",
        "--direct_num_workers=1",
    ]
    fetch(tmp_path / "pairs", images)
    assert encode_shards.main([*options, f"--output={old}"]) == 0
    fetch(tmp_path / "pairs", images)
    assert encode_shards.main([*options, f"--add-to={old}", f"--output={both}"]) == 0
    assert encode_shards.main([*options, f"--output={whole}"]) == 0
    assert [ledger(output)["kept"] for output in (images, old, both, whole)] == [12, 8, 12, 12]
    made, at_once = (
        {
            name: data
            for name, data in files_of(output).items()
            if name not in ("manifest.json", "README.md", "croissant.json")
        }
        for output in (both, whole)
    )
    assert made == at_once


# --- killed ----------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments(web, elsewhere, tmp_path, exhaustive):
    paths = [f"{kind}/{n}" for n in range(60) for kind in ("slow", "good", "page", "status/503")]
    pairs = [pair(web.url(path, host=1 + n % 20)) for n, path in enumerate(paths)]
    write_pairs(tmp_path / "pairs", pairs)
    options = ["--pairs-per-unit=8", "--connections=8", "--direct_num_workers=2"]
    command = ["fetch", f"--pairs={tmp_path / 'pairs'}", *OPTIONS, *options]

    def run(output: Path, kill_after_s: float | None = None) -> bool:
        """Whether it was killed."""
        status, said = elsewhere.run([*command, f"--output={output}"], tmp_path, kill_after_s=kill_after_s)
        assert status in (0, -signal.SIGKILL), said
        return status != 0

    began = time.monotonic()
    assert not run(tmp_path / "undisturbed")
    whole_s = time.monotonic() - began
    kills, rng = 10 if exhaustive else 1, random.Random(0)
    while kills and not (tmp_path / "killed" / "ledger.json").exists():
        kills -= run(tmp_path / "killed", whole_s * rng.uniform(0.4, 0.9))
    if not (tmp_path / "killed" / "ledger.json").exists():
        assert not run(tmp_path / "killed")
    found = files_of(tmp_path / "killed")
    found = {name: data for name, data in found.items() if not name.startswith("_work/")}  # killed as it was finished
    assert found == files_of(tmp_path / "undisturbed")
    assert ledger(tmp_path / "killed") == {
        "read": 240,
        "kept": 120,
        "rejected": {"fetch": {"http_5xx": 60, "not_an_image": 60}},
    }
    assert keys_in_tars(tmp_path / "killed") == dict.fromkeys(
        (one.key for one in pairs if "good" in one.url or "slow" in one.url), 1
    )


# --- hosts -----------------------------------------------------------------------------------------------------------


def test_a_limit_holds_for_all_workers(web, tmp_path):
    """Two connections and five requests a second, measured at the server."""
    write_pairs(tmp_path / "pairs", [pair(web.url(f"slow/{n}")) for n in range(15)])
    fetch(
        tmp_path / "pairs",
        tmp_path / "images",
        "--pairs-per-unit=3",
        "--direct_num_workers=2",
        "--per-host-connections=2",
        "--per-host-rate=5",
    )
    assert ledger(tmp_path / "images")["kept"] == 15
    assert web.most_at_once[1] <= 2
    times = sorted(request.time for request in web.log)
    assert times[-1] - times[0] > 14 / 5 - 0.2
    for begun in times:  # never more than five begin within a second, and one whose way to the server took longer
        assert sum(begun <= at < begun + 0.9 for at in times) <= 6


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (["--resize=128"], r"fetch\.resize: 0 -> 128"),
        (["--allow-address=10.0.0.0/8"], r"allow_addresses: .*127.*10\.0"),
        (["--min-side=8"], r"min_side: 64 -> 8"),
    ],
    ids=["resize", "address", "side"],
)
def test_a_finished_output_of_other_settings(web, tmp_path, other, named):
    write_pairs(tmp_path / "pairs", [pair(web.url("plain/1"))])
    fetch(tmp_path / "pairs", tmp_path / "images")
    before = files_of(tmp_path / "images")
    with pytest.raises(UserError, match=named):
        fetch(tmp_path / "pairs", tmp_path / "images", *other)
    fetch(tmp_path / "pairs", tmp_path / "images")  # the same: nothing to do
    assert files_of(tmp_path / "images") == before
