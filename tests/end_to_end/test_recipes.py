"""The commands of docs/recipes.md, run as they stand, on small lists of the same form and under the same names.

`ADDED` is the only difference: what it holds for a command is put behind the command's own options, where it wins. But
images of a dump, whose addresses `select` makes, are fetched from the loopback instead of Wikimedia.
`{tokenizer}` is a tiny one or, where the recipe has trained its own, that one at 64 px.
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.output.ledger import read_ledger
from sample.make_sources import write_sources
from tests.support import dumps
from tests.support.paths import ROOT
from tests.support.recipes import ADDED

OWN_TOKENIZER = Path("dvae/dvae.safetensors")
STATUS = {"diff": 1}  # the datasets that are compared differ
ROWS = 12  # of a list
# A dump names images, not addresses: those that select gives them, at Wikimedia, become the loopback server's.
AT_WIKIMEDIA = {"A Wikipedia dump"}


def recipes() -> dict[str, list[list[list[str]]]]:
    """Title -> its `sh` blocks, each a list of commands, each a list of words."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        if blocks := re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S):
            lines = [block.replace("\\\n", " ").splitlines() for block in blocks]
            found[section.partition("\n")[0]] = [[shlex.split(line) for line in block] for block in lines]
    return found


RECIPES = recipes()


@pytest.fixture
def folder(server, images, tmp_path, monkeypatch) -> Path:
    """The working folder, with every list under its published name."""
    sources = tmp_path / "sources"
    write_sources(sources, server.url)
    lines = (sources / "cc3m.tsv").read_bytes().splitlines(keepends=True)
    (tmp_path / "Train_GCC-training.tsv").write_bytes(b"".join(lines[:ROWS]))
    lines = (sources / "cc12m.tsv").read_bytes().splitlines(keepends=True)
    late = [line for line in lines if b"/flaky/" in line]  # fails at the first run, not at the second
    (tmp_path / "cc12m.tsv").write_bytes(b"".join(lines[:ROWS] + late))
    lines = bz2.decompress((sources / "yfcc100m_dataset-1.bz2").read_bytes()).splitlines(keepends=True)[: ROWS * 2]
    (tmp_path / "yfcc100m_dataset.bz2").write_bytes(bz2.compress(b"".join(lines)))
    subset = [b"\t".join(line.split(b"\t")[:3]) + b"\n" for line in lines[::2] if line.count(b"\t") == 24]
    (tmp_path / "yfcc100m_subset_data.tsv.bz2").write_bytes(bz2.compress(b"".join(subset)))
    wit = gzip.decompress((sources / "wit_v1.sample.tsv.gz").read_bytes())
    for number in (0, 1):  # the second repeats the first, whose pairs stay
        (tmp_path / f"wit_v1.train.all-0000{number}-of-00010.tsv.gz").write_bytes(gzip.compress(wit[:9_000]))
    named = [path.name for path in sorted((ROOT / "sample" / "images").iterdir()) if path.suffix == ".jpg"][:ROWS]
    texts = [f"[[File:{name}|thumb|A boat in the old harbour of the town {name[:4]}]]" for name in named]
    dumps.write_dump(tmp_path, [dumps.page(number, text) for number, text in enumerate(texts)])
    for name in (dumps.DUMP, dumps.INDEX):
        (tmp_path / name).rename(tmp_path / name.replace("dewiki-20240101", "enwiki-latest"))
    shutil.copytree(images, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lead_to(server, pairs: Path) -> None:
    """Puts the server's addresses of the images in place of Wikimedia's."""
    for path in (pairs / "pairs").iterdir():
        table = pq.read_table(path)
        for name in ("url", "fallback_urls"):
            texts = json.dumps(table[name].to_pylist())
            here = re.sub(
                r'https://upload\.[^"]*/(?:\d+px-)?([^"/]+)', lambda url: f"{server.url}/images/{url[1].lower()}", texts
            )
            position, field = table.schema.get_field_index(name), table.schema.field(name)
            table = table.set_column(position, field, pa.array(json.loads(here), field.type))
        pq.write_table(table, path)


@pytest.mark.parametrize("title", RECIPES)
def test_the_commands_run_as_they_stand(title, folder, server, tiny_size, tiny_dvae, capsys):
    commands = [command for block in RECIPES[title] for command in block]
    for program, name, *options in commands:
        assert program == "pairmill"
        tokenizer = f"dvae:{OWN_TOKENIZER}@64" if OWN_TOKENIZER.exists() else tiny_dvae
        status = cli.main([name, *options, *ADDED.get(name, "").format(tokenizer=tokenizer).split()])
        assert status == STATUS.get(name, 0), capsys.readouterr()
        if "--output" in options and name in ("select", "build", "encode") and "--dry-run" not in options:
            ledger = read_ledger(options[options.index("--output") + 1])
            assert sum(source["kept"] for source in ledger["sources"].values()) > 0
        if name == "select" and title in AT_WIKIMEDIA:
            lead_to(server, folder / options[options.index("--output") + 1])
    assert commands[-1][1] == "generate"
    assert (folder / commands[-1][commands[-1].index("--output") + 1] / "0000.png").is_file()


def test_every_source_has_its_recipe():
    named = {word.partition("=")[0] for blocks in RECIPES.values() for block in blocks for one in block for word in one}
    assert {"cc3m", "cc12m", "yfcc100m", "wit", "wikipedia-dump"} <= named and len(RECIPES) == 6
