"""The `pairmill` command. A sub-command's module is imported only when it is called."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import sys
from collections.abc import Callable, Iterator

from models.errors import UserError, ends_on_interrupt, report_errors
from models.process_end import run_as_process
from pipeline.version import VERSION

COMMANDS = {
    "build": ("beam_jobs.build_dataset", "turn lists of images into a dataset in one job: select, fetch and encode"),
    "select": ("beam_jobs.select_pairs", "filter lists into image-caption pairs, with a reason for each rejected row"),
    "fetch": ("beam_jobs.fetch_images", "download the images of pairs, in img2dataset's layout"),
    "score": ("beam_jobs.score_images", "measure images and captions, and how well they agree"),
    "cluster": ("beam_jobs.cluster_scores", "compare scored images with each other, to find semantic duplicates"),
    "encode": ("beam_jobs.encode_shards", "turn images into image codes and BPE tokens, in WebDataset shards"),
    "repack": ("beam_jobs.repack_dataset", "merge datasets, reduce them to a share or change the size of their shards"),
    "filter": ("beam_jobs.filter_dataset", "keep the pairs of a dataset for which a condition holds"),
    "stats": ("pipeline.inspection.stats", "count what a dataset holds and what was rejected"),
    "diff": ("pipeline.inspection.diff", "compare two datasets pair by pair"),
    "show": ("pipeline.inspection.show", "print pairs, or write a page of images, reconstructions and captions"),
    "verify": ("pipeline.inspection.verify", "check every byte of a dataset, and repair it"),
    "hash": (
        "pipeline.dataset.exclusion_list",
        "list hashes of images, which `build --exclude` keeps out of a dataset",
    ),
    "train-bpe": ("models.training.train_bpe", "train a text tokenizer on captions"),
    "train-dvae": ("models.training.train_dvae", "train an image tokenizer on images"),
    "train": ("models.training.train", "train a transformer on a dataset"),
    "export": ("models.export.to_transformers", "write a trained transformer as a folder that transformers loads"),
    "generate": ("models.sampling.generate", "draw images from text"),
    "evaluate": ("models.evaluation.evaluate", "measure how good a transformer or an image tokenizer is"),
    "serve": ("models.server.app", "draw images from text, on a web page and over HTTP"),
}

# What a command that was interrupted leaves: a job says it by itself once it runs.
_CONTINUES = "the same command continues with what was not finished"
_RESUMES = "the same command with --resume continues from the last checkpoint, if it has written one"
AFTER_INTERRUPT = dict.fromkeys(
    ("build", "select", "fetch", "score", "cluster", "encode", "repack", "filter"), _CONTINUES
) | dict.fromkeys(("train", "train-dvae"), _RESUMES)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns its exit status. Without arguments it is that of this process, which ends with it."""
    if arguments is None:
        run_as_process(lambda: _run(sys.argv[1:], is_own_process=True))
    return _run(arguments, is_own_process=False)


def _run(arguments: list[str], is_own_process: bool) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return report_errors(lambda: print(usage()) or (0 if arguments else 2))
    if arguments[0] in ("-V", "--version"):
        print(f"pairmill {VERSION}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"pairmill: there is no command {arguments[0]!r}; `pairmill --help` lists them", file=sys.stderr)
        return 2
    module, _ = COMMANDS[arguments[0]]
    logging.getLogger().setLevel(logging.ERROR)  # Beam warns about its internals, from its import on
    after_interrupt = AFTER_INTERRUPT.get(arguments[0], "")
    return report_errors(lambda: _load(module, after_interrupt, is_own_process)(arguments[1:]), after_interrupt)


def _load(module: str, after_interrupt: str, is_own_process: bool) -> Callable[[list[str]], int]:
    try:
        with ends_on_interrupt(after_interrupt), _without_collections(is_own_process):
            loaded = importlib.import_module(module)
        if is_own_process and (prepare_process := getattr(loaded, "prepare_process", None)):
            prepare_process()  # a job's: see beam_jobs.run
        return loaded.main
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("models", "pipeline", "beam_jobs"):
            raise
        raise UserError(
            f"the package {error.name} is not installed; `pip install '.[pipeline,serve]'` in a clone installs it"
        ) from None


@contextlib.contextmanager
def _without_collections(is_own_process: bool) -> Iterator[None]:
    """Leaves what the block makes out of all garbage collections, in a process of one command: looking through modules
    again and again takes a sixth of the time of importing them, and copies the memory that workers share."""
    if not is_own_process:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pairmill COMMAND [options]     (pairmill COMMAND --help lists its options)",
            "",
            "Turns image-caption lists from the web into training-ready tokens.",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
