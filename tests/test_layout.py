"""The rooms: which package may import which, and what a module may look like. The table is the rule."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator

import pytest

import pipeline
from pipeline.cli import COMMANDS
from pipeline.version import VERSION
from tests.support.paths import ROOT

# Room: the rooms that it may import, all of them above it. A room of models/ is named with its package everywhere.
ROOMS = {
    "models.errors": "",
    "models.command_line": "",
    "models.hashing": "",
    "models.next_command": "",
    "models.process_end": "",
    "models.progress": "",
    "models.text_table": "",
    "models.device": "",
    "models.files": "",
    "models.pixels": "",
    "models.image_files": "",
    "models.tokenizers": "models.device models.files models.pixels",
    "models.data": "models.files models.tokenizers",
    "models.scoring": "models.files models.tokenizers",
    "models.transformer": "models.data",
    "models.sampling": "models.progress models.device models.files models.pixels models.image_files models.tokenizers "
    "models.data models.transformer",
    "models.training": "models.progress models.device models.files models.pixels models.image_files models.tokenizers "
    "models.data models.transformer models.sampling",
    "models.evaluation": "models.text_table models.progress models.device models.files models.pixels "
    "models.tokenizers models.data models.scoring models.transformer models.sampling models.training",
    "models.export": "models.progress models.files models.tokenizers models.data models.transformer models.sampling",
    "models.server": "models.image_files models.transformer models.sampling",
    "pipeline.version": "",
    "pipeline.records": "",
    "pipeline.text": "",
    "pipeline.checks": "pipeline.text",
    "pipeline.filters": "pipeline.text pipeline.checks",
    "pipeline.output": "models.progress models.files models.data",
    "pipeline.sources": "models.pixels pipeline.text pipeline.output",
    "pipeline.images": "models.pixels pipeline.output",
    "pipeline.select": "pipeline.filters pipeline.sources pipeline.output",
    "pipeline.fetch": "pipeline.filters pipeline.sources pipeline.images pipeline.output",
    "pipeline.dataset": "models.files models.progress models.data models.tokenizers pipeline.sources pipeline.images "
    "pipeline.output",
    "pipeline.codes": "models.tokenizers pipeline.filters pipeline.sources pipeline.dataset pipeline.output",
    "pipeline.tokenizer_files": "models.files pipeline.output",
    "pipeline.scores": "models.device models.files models.tokenizers models.data models.scoring pipeline.dataset "
    "pipeline.fetch pipeline.images pipeline.output pipeline.tokenizer_files",
    "pipeline.tokenize_stage": "models.pixels models.tokenizers pipeline.dataset pipeline.fetch pipeline.images "
    "pipeline.output pipeline.scores pipeline.tokenizer_files",
    "pipeline.encode_units": "pipeline.fetch pipeline.images pipeline.output pipeline.scores pipeline.tokenize_stage",
    "pipeline.inspection": "models.next_command models.progress models.text_table models.files models.pixels "
    "models.data models.tokenizers pipeline.dataset pipeline.fetch pipeline.images pipeline.output pipeline.scores",
    "pipeline.estimate": "models.text_table models.data pipeline.filters pipeline.sources pipeline.images "
    "pipeline.fetch pipeline.inspection pipeline.output",
    "pipeline.cli": "",
    "beam_jobs.fork_server": "",
    "beam_jobs.job_server": "",
    "beam_jobs.local_runner": "beam_jobs.fork_server",
    "beam_jobs.flags": "beam_jobs.job_server beam_jobs.local_runner models.device models.files models.tokenizers "
    "pipeline.text pipeline.filters pipeline.sources pipeline.images pipeline.fetch pipeline.dataset pipeline.scores "
    "pipeline.tokenize_stage pipeline.output",
    "beam_jobs.interrupt": "",
    "beam_jobs.engine": "beam_jobs.flags beam_jobs.job_server pipeline.output",
    "beam_jobs.run": "beam_jobs.engine beam_jobs.flags beam_jobs.interrupt beam_jobs.local_runner pipeline.fetch "
    "pipeline.inspection pipeline.output",
    "beam_jobs.part": "beam_jobs.run beam_jobs.flags pipeline.output",
    "beam_jobs.dataset_output": "beam_jobs.flags beam_jobs.part pipeline.dataset pipeline.output",
    "beam_jobs.estimate": "beam_jobs.flags pipeline.estimate pipeline.fetch pipeline.output pipeline.sources",
}
JOB = (
    "beam_jobs.flags beam_jobs.run beam_jobs.part beam_jobs.dataset_output beam_jobs.estimate pipeline.sources "
    "pipeline.select pipeline.fetch pipeline.images pipeline.dataset pipeline.scores pipeline.tokenize_stage "
    "pipeline.encode_units pipeline.output"
)
ROOMS["beam_jobs.encode_codes"] = (
    "models.tokenizers beam_jobs.flags beam_jobs.part beam_jobs.dataset_output pipeline.codes pipeline.dataset "
    "pipeline.output"
)
JOBS = (
    "build_dataset",
    "select_pairs",
    "fetch_images",
    "encode_shards",
    "repack_dataset",
    "score_images",
    "cluster_scores",
    "filter_dataset",
)
ROOMS |= {f"beam_jobs.{job}": JOB for job in JOBS}
ROOMS["beam_jobs.encode_shards"] += " beam_jobs.encode_codes"
EVERYWHERE = {"models.errors", "models.command_line", "models.hashing", "models.next_command", "models.process_end"}
OUTSIDE_MODELS = {"pipeline.records", "pipeline.version"}
OURS = ("models", "pipeline", "beam_jobs")
NOT_FOR_MODELS = {"apache_beam", "pipeline", "beam_jobs", "sample", "tests"}
FILES = [path.relative_to(ROOT) for top in OURS for path in sorted((ROOT / top).rglob("*.py"))]
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def room_of(module: str) -> str:
    """The longest name of the table that a module begins with; "" for a package above the rooms."""
    parts = module.split(".")
    return next((name for n in (3, 2) if (name := ".".join(parts[:n])) in ROOMS), "")


def imported(module: str) -> Iterator[tuple[str, ast.stmt]]:
    """Our own modules that a module imports, wherever the statement stands."""
    for node in ast.walk(ast.parse((ROOT / MODULES[module]).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        else:
            continue
        yield from ((name, node) for name in names if name.split(".")[0] in OURS)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles of a graph, one for each edge that closes one."""
    found, done = [], set()

    def visit(node: str, way: list[str]) -> None:
        if node in way:
            found.append([*way[way.index(node) :], node])
        elif node not in done:
            for other in sorted(graph.get(node, ())):
                visit(other, [*way, node])
            done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return found


def test_the_table_points_up():
    rooms = list(ROOMS)
    for room, allowed in ROOMS.items():
        above = set(rooms[: rooms.index(room)])
        assert set(allowed.split()) <= above, room


def rooms_in_docs() -> dict[str, set[str]]:
    """Room -> what it may import, by the tables of docs/architecture.md."""
    found: dict[str, set[str]] = {}
    package = ""
    for line in (ROOT / "docs/architecture.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and "may import" in cells[2]:
            package = cells[0].strip("`/")
        elif len(cells) != 3:
            package = ""
        elif package and cells[0].startswith("`"):
            of_models, _, own = cells[2].rpartition("; ") if "; " in cells[2] else (cells[2], "", "")
            if not of_models.startswith("models: "):
                of_models, own = "", cells[2]
            names = [f"models.{name}" for name in of_models.removeprefix("models: ").split(", ") if name]
            names += [f"{package}.{name}" for name in own.split(", ") if name]
            found |= {f"{package}.{room.strip('`/')}": set(names) for room in cells[0].split(", ")}
    return found


def test_the_docs_have_the_same_table():
    known = {
        room: set(allowed.split()) - EVERYWHERE for room, allowed in ROOMS.items() if not room.startswith("beam_jobs.")
    }
    assert rooms_in_docs() == known


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_its_row_allows(module):
    room = room_of(module)
    allowed = set(ROOMS.get(room, "").split()) | EVERYWHERE | {room}
    if not module.startswith("models"):
        allowed |= OUTSIDE_MODELS
    wrong = {name for name, _ in imported(module) if room_of(name) not in allowed}
    assert not wrong, f"{module} (room {room}) imports {sorted(wrong)}"


def test_modules_have_no_circle():
    graph = {module: {name for name, _ in imported(module)} - {module} for module in MODULES}
    assert not circles(graph)
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=str)
def test_a_package_is_a_docstring(path):
    """So that the files and flags of select and fetch load without torch."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    assert isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    assert len(body) == 1 or str(path) in ("models/__init__.py", "pipeline/__init__.py")


def test_the_version_is_where_users_look_for_it():
    assert pipeline.__version__ == VERSION


def test_tests_share_only_what_is_in_support():
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                names = [*str(node.module).split("."), *(each.name for each in node.names)]
                wrong += [(str(path), name) for name in names if name == "conftest" or name.startswith("test_")]
    assert not wrong


def test_every_folder_is_a_package():
    """setup.cfg's `find:` leaves out folders without an __init__.py."""
    folders = {path.parent for path in FILES}
    assert all((ROOT / folder / "__init__.py").exists() for folder in folders)


@pytest.mark.parametrize("module", MODULES)
def test_imports_stand_at_the_top(module):
    tree = ast.parse((ROOT / MODULES[module]).read_text(encoding="utf-8"))
    late = [ast.unparse(node) for _, node in imported(module) if node.col_offset]
    assert not late, "our own modules are imported at the top of the file"
    assert not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


def test_nothing_imports_the_command_and_it_names_what_exists():
    assert not [module for module in MODULES for name, _ in imported(module) if name == "pipeline.cli"]
    for module, _ in COMMANDS.values():
        assert "main" in {getattr(node, "name", "") for node in ast.parse((ROOT / MODULES[module]).read_text()).body}


def test_only_the_table_of_commands_names_modules():
    """An import by a string would go past the table of rooms. Packages are named where their files are read."""
    modules = {name for name, path in MODULES.items() if path.name != "__init__.py"}
    for name, path in MODULES.items():
        found = {
            node.value for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Constant)
        }
        allowed = {module for module, _ in COMMANDS.values()} if name == "pipeline.cli" else set()
        assert not found & modules - allowed, name


def test_every_job_prepares_its_process():
    for module, _ in COMMANDS.values():
        tree = ast.parse((ROOT / MODULES[module]).read_text())
        names = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert ("prepare_process" in names) == module.startswith("beam_jobs."), module


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "models"], ids=str)
def test_models_need_no_beam(path):
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert not names & NOT_FOR_MODELS


@pytest.mark.parametrize(
    "modules", ["beam_jobs.select_pairs, beam_jobs.fetch_images", "beam_jobs.flags.files, models.data.format"]
)
def test_selecting_and_fetching_need_no_torch(modules):
    """It would take 200 MB of every worker."""
    check = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_every_file_that_is_no_module_is_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packaged = {
        path
        for package, patterns in config["options.package_data"].items()
        for pattern in patterns.split(",")
        for path in (ROOT / package.replace(".", "/")).glob(pattern.strip())
    }
    found = {path for top in OURS for path in (ROOT / top).rglob("*") if path.is_file()}
    assert {path for path in found if path.suffix not in (".py", ".pyc")} == {
        path for path in packaged if path.is_file()
    }


# The modules that name files on disk. Sentences and docstrings may mention a name; a path may not hold one.
NAMING_MODULES = {
    "models.data.format",
    "models.tokenizers.info",
    "models.sampling.checkpoint",
    "models.training.checkpoint",
    "models.files",
    "pipeline.output.names",
}
NAMES_ON_DISK = {
    "manifest.json",
    "ledger.json",
    "settings.json",
    "scores.json",
    "lease.json",
    "run.json",
    "attempts.json",
    "text_tokenizer.json",
    "croissant.json",
    "README.md",
    "checkpoint.pt",
    "config.json",
    "log.jsonl",
    "model.safetensors",
    "averaged.safetensors",
    "dvae.safetensors",
    "pictures.png",
    "_stats.json",
    ".tmp",
    "_work",
}
FOLDERS_ON_DISK = {"index", "rejects", "pairs", "units", "progress", "rows", "spill", "shards", "scores", "embeddings"}
NOT_OURS = {  # module: words that look like names of ours
    "models.scoring.model_folder": {"config.json"},  # of transformers
    "models.tokenizers.image": {"config.json"},  # of diffusers
    "models.tokenizers.titok": {"config.json"},  # as the hub names it
    "pipeline.dataset.cards": {"pairs"},  # Croissant's identifiers
    "pipeline.inspection.show_rows": {"rejects"},  # the seed of a choice, which must stay
    "pipeline.output.state": {".tmp"},  # a pattern
}
TAKE_PATHS = {"join", "files_in", "stage_files", "_parts", "remove_stale_files", "WriteParquet", "write_file", "exists"}


def names_on_disk(text: str) -> set[str]:
    """The names that a string has as components of a path, or as its end; none in a sentence."""
    if " " in text.strip():
        return set()
    parts = text.split("/")
    endings = {name for name in NAMES_ON_DISK if name.startswith(("_", ".")) and text.endswith(name)}
    found = {part for part in parts if part in NAMES_ON_DISK} | endings
    return found | {part for part in parts[:-1] if part in FOLDERS_ON_DISK}


def called_name(call: ast.Call) -> str:
    """The name of a function or method; "" for a method of a literal, such as str.join."""
    is_of_literal = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Constant)
    return "" if is_of_literal else getattr(call.func, "attr", getattr(call.func, "id", ""))


def literal_names(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= names_on_disk(node.value)
        elif isinstance(node, ast.Call) and called_name(node) in TAKE_PATHS:
            values = [getattr(value, "value", None) for argument in node.args for value in ast.walk(argument)]
            found |= FOLDERS_ON_DISK & {value for value in values if isinstance(value, str)}
    return found


@pytest.mark.parametrize("module", sorted(set(MODULES) - NAMING_MODULES))
def test_files_on_disk_are_named_by_constants(module):
    tree = ast.parse((ROOT / MODULES[module]).read_text(encoding="utf-8"))
    found = literal_names(tree) - NOT_OURS.get(module, set())
    assert not found, f"use the constants of {', '.join(sorted(NAMING_MODULES))}"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('join(folder, "manifest.json")', {"manifest.json"}),
        ('files_in(folder, "rejects")', {"rejects"}),
        ('f"rejects/{name}.parquet"', {"rejects"}),
        ('f"{base}_stats.json"', {"_stats.json"}),
        ('row["rejects"]', set()),
        ('raise ValueError("no ledger.json there")', set()),
    ],
)
def test_a_literal_is_found(code, names):
    assert literal_names(ast.parse(code)) == names
