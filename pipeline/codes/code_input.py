"""What files of codes hold, before a job reads them: their ranges, the form of the codes and the tokenizer that made
them."""

from __future__ import annotations

from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

from models.errors import UserError
from models.tokenizers import elsewhere
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.info import CodeShape, ImageTokenizerInfo
from pipeline.codes.code_files import CodeRange, check_table, find_code_files, ranges_of
from pipeline.codes.form import content_name, first_codes, form_of
from pipeline.codes.row_codes import CodeForm
from pipeline.sources.paths import map_files


class GivenForm(NamedTuple):
    """What the command states about the codes; None: it is read from the files."""

    draws: int
    spec: str | None = None  # of the image tokenizer that computed them
    shape: CodeShape | None = None
    vocabulary: int | None = None


class CodeInput(NamedTuple):
    """What the files hold."""

    ranges: list[CodeRange]
    folders: set[str]
    form: CodeForm
    tokenizer: ImageTokenizerInfo


def read_input(pattern: str, captions: str | None, given: GivenForm) -> CodeInput:
    """Looks into the files of a pattern, and of that of the captions. Raises UserError for files that are not codes
    with captions, and for those that do not fit what is given."""
    files = find_code_files(pattern, captions)
    map_files(check_table, files)
    ranges = [each for found in map_files(ranges_of, files) for each in found if each.rows]
    if not ranges:
        raise UserError(f"--codes {pattern}: holds no row")
    loaded = _loaded_info(given)
    shape = loaded.shape if loaded else given.shape
    vocabulary = loaded.vocabulary if loaded else given.vocabulary
    first = first_codes(files)
    form = form_of(files, first, given.draws, shape, vocabulary)
    name = given.spec.partition(":")[2] if given.spec else content_name(first)
    tokenizer = loaded or elsewhere.info_by_name(name, form.vocabulary, form.shape)
    folders = {FileSystems.split(path)[0] for file in files for path in file}
    return CodeInput(ranges, folders, form, tokenizer)


def _loaded_info(given: GivenForm) -> ImageTokenizerInfo | None:
    """The tokenizer that is given, if it can be loaded. Raises UserError for options that say otherwise than it."""
    if not given.spec or elsewhere.is_elsewhere(given.spec):
        return None
    info = load_image_tokenizer(given.spec).info
    for option, value, own in (
        ("--code-shape", given.shape, info.shape),
        ("--code-vocabulary", given.vocabulary, info.vocabulary),
    ):
        if value is not None and value != own:
            raise UserError(f"{option} {value}: {info.spec} has {own}; leave the option out")
    return info
