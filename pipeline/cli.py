"""The `pairmill` command. A sub-command's module is imported only when it is called."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable

from models.errors import UserError, report_errors
from pipeline.version import VERSION

COMMANDS = {
    "build": ("beam_jobs.build_dataset", "select, fetch and encode in one job: lists in, dataset out"),
    "select": ("beam_jobs.select_pairs", "source files to pairs, with a reason for each row dropped"),
    "fetch": ("beam_jobs.fetch_images", "pairs to pictures, in img2dataset's layout"),
    "encode": ("beam_jobs.encode_shards", "pictures to image codes and BPE tokens, in WebDataset shards"),
    "repack": ("beam_jobs.repack_dataset", "datasets to one: merged, thinned out, in other shards"),
    "stats": ("pipeline.inspection.stats", "what is in a dataset, and what was dropped"),
    "diff": ("pipeline.inspection.diff", "what two datasets have in common, and what not"),
    "show": ("pipeline.inspection.show", "a page with pictures, their reconstruction from the codes, and captions"),
    "verify": ("pipeline.inspection.verify", "is every byte of a dataset as it was written?"),
    "hash": ("pipeline.dataset.exclusion_list", "pictures that must not be in a dataset, for --exclude"),
    "train-bpe": ("models.training.train_bpe", "captions to a text tokenizer"),
    "train-dvae": ("models.training.train_dvae", "pictures to an image tokenizer"),
    "train": ("models.training.train", "a dataset to a transformer"),
    "generate": ("models.sampling.generate", "text to pictures"),
    "serve": ("models.server.app", "text to pictures, as a page and over HTTP"),
}

# What a command that was interrupted leaves: a job says it by itself once it runs.
_CONTINUES = "the same command continues with what was not finished"
_RESUMES = "the same command with --resume continues from the last checkpoint, if it has written one"
AFTER_INTERRUPT = dict.fromkeys(("build", "select", "fetch", "encode", "repack"), _CONTINUES) | dict.fromkeys(
    ("train", "train-dvae"), _RESUMES
)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"pairmill {VERSION}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"pairmill: there is no command {arguments[0]!r}; `pairmill --help` lists them", file=sys.stderr)
        return 2
    module, _ = COMMANDS[arguments[0]]
    logging.getLogger().setLevel(logging.ERROR)  # Beam's warnings, from its import on, speak of its insides
    return report_errors(lambda: _load(module)(arguments[1:]), AFTER_INTERRUPT.get(arguments[0], ""))


def _load(module: str) -> Callable[[list[str]], int]:
    try:
        return importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("models", "pipeline", "beam_jobs"):
            raise
        raise UserError(
            f"the package {error.name} is not installed; `pip install 'pairmill[pipeline,serve]'` brings it"
        ) from None


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pairmill COMMAND [options]     (pairmill COMMAND --help lists its options)",
            "",
            "Image-caption lists from the web to training-ready tokens.",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
