"""Drawing: a picture is the same alone or among others, files say what made them, wrong tokenizers are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import UserError
from models.image_files import image_grid
from models.sampling import checkpoint as checkpoints
from models.sampling import generate as drawing
from models.sampling import sampler
from models.sampling.checkpoint import ImageGenerator, load_generator
from models.sampling.generate import GenerationRequest
from models.sampling.reranking import Ranker, Ranking
from models.sampling.sampler import ImageRequest, SamplingConfig, SamplingTensors, image_seed, sample_codes, sample_next
from models.server import app
from models.tokenizers.dvae import DVAE, DVAEConfig, save_dvae
from tests.support.images import text_of


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint) -> Path:
    return tiny_checkpoint


@pytest.fixture(scope="module")
def generator(checkpoint) -> ImageGenerator:
    return load_generator(checkpoint)


def requests_of(tokens: list[int], seeds: list[int], *others) -> list[ImageRequest]:
    return [ImageRequest(tokens, seed, *others) for seed in seeds]


def run(checkpoint: Path | str, output: Path, *others: object, prompt: str = "a red cat", count: int = 3) -> int:
    return drawing.main(
        [
            str(argument)
            for argument in (
                "--checkpoint",
                checkpoint,
                "--prompt",
                prompt,
                "--count",
                count,
                "--seed",
                7,
                "--output",
                output,
                *others,
            )
        ]
    )


def test_writes_images_that_say_what_made_them(checkpoint, generator, tmp_path):
    assert run(checkpoint, tmp_path, prompt="a red cat 😺 in the snow") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png"]
    with Image.open(tmp_path / "0002.png") as image:
        assert image.size == (64, 64)
        assert text_of(image)["prompt"] == "a red cat 😺 in the snow"
        assert (text_of(image)["seed"], text_of(image)["index"]) == ("7", "2")
        assert text_of(image)["image_tokenizer"] == generator.image_tokenizer.info.fingerprint
        assert text_of(image)["text_tokenizer"] == generator.text_tokenizer.info.fingerprint
        assert text_of(image)["model"] == generator.fingerprint
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (128, 128)


def test_a_seed_draws_the_same_images_again(checkpoint, tmp_path):
    """And more of them go on from there."""
    run(checkpoint, tmp_path / "a", count=3)
    run(checkpoint, tmp_path / "b", count=sampler.BATCH_SIZE + 2)
    for name in ("0000.png", "0001.png", "0002.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    run(checkpoint, tmp_path / "c", "--seed", 8, count=1)
    assert (tmp_path / "a" / "0000.png").read_bytes() != (tmp_path / "c" / "0000.png").read_bytes()


def test_a_image_is_the_same_alone_or_among_others(generator):
    group = sampler.BATCH_SIZE
    seeds = [image_seed(0, index) for index in range(2 * group + 1)]
    together = sample_codes(generator.model, requests_of([5, 6], seeds))
    assert len({tuple(codes) for codes in together.tolist()}) == len(seeds)
    for index in (0, 2, group, 2 * group):
        assert torch.equal(sample_codes(generator.model, requests_of([5, 6], [seeds[index]]))[0], together[index])


def test_the_caption_matters(generator):
    assert not torch.equal(
        sample_codes(generator.model, requests_of([5, 6], [1])), sample_codes(generator.model, requests_of([9], [1]))
    )


def test_a_long_prompt_is_cut_to_what_the_model_reads(generator):
    tokens = [5] * generator.model.config.text_length
    long, cut = (sample_codes(generator.model, requests_of(given, [1])) for given in (tokens + [6] * 1000, tokens))
    assert torch.equal(long, cut)


@pytest.mark.parametrize("prompt", ["x " * 5000, "😺", "mot à mot"])
def test_any_text_draws(generator, tmp_path, prompt):
    drawing.generate(generator, GenerationRequest(prompt, 1, 0), tmp_path)
    assert (tmp_path / "0000.png").exists()


# --- choosing codes --------------------------------------------------------------------------------------------------

LOGITS = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))


@pytest.mark.parametrize(
    "sampling, kept",
    [
        (SamplingConfig(), {0, 1, 2, 3}),
        (SamplingConfig(top_k=1), {1}),
        (SamplingConfig(top_k=2), {1, 3}),
        (SamplingConfig(top_k=9), {0, 1, 2, 3}),
        (SamplingConfig(top_p=0.3), {1}),
        (SamplingConfig(top_p=0.6), {1, 3}),
        (SamplingConfig(top_p=0.95), {0, 1, 2, 3}),
        (SamplingConfig(top_k=3, top_p=0.5), {1, 3}),  # of the three that top-k leaves, 0.4 / 0.9 is too little
        (SamplingConfig(temperature=1e-300), {1}),
    ],
)
def test_choose_keeps(sampling, kept):
    uniforms_B = torch.linspace(0, 1 - 2**-24, 1000)
    settings = SamplingTensors.of([sampling] * 1000, 4)
    assert set(sample_next(LOGITS.expand(1000, -1), uniforms_B, settings).tolist()) == kept


def test_choose_follows_the_probabilities():
    uniforms_B = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(
        sample_next(LOGITS.expand(1000, -1), uniforms_B, SamplingTensors.of([SamplingConfig()] * 1000, 4)), minlength=4
    )
    assert counts.tolist() == [100, 400, 200, 300]
    settings = SamplingTensors.of([SamplingConfig(temperature=1e6)] * 1000, 4)
    hot = torch.bincount(sample_next(LOGITS.expand(1000, -1), uniforms_B, settings), minlength=4)
    assert hot.tolist() == [250] * 4


def test_every_row_is_chosen_by_its_own_sampling():
    samplings = [
        SamplingConfig(),
        SamplingConfig(top_k=1),
        SamplingConfig(top_p=0.6),
        SamplingConfig(temperature=1e-3),
        SamplingConfig(top_k=3),
    ]
    uniforms_B = torch.full((5,), 0.05)
    together = sample_next(LOGITS.expand(5, -1), uniforms_B, SamplingTensors.of(samplings, 4))
    alone = [sample_next(LOGITS, uniforms_B[:1], SamplingTensors.of([sampling], 4)).item() for sampling in samplings]
    assert together.tolist() == alone == [0, 1, 1, 1, 1]


def test_a_group_may_mix_captions_and_samplings(generator):
    mixed = [
        ImageRequest([5, 6], 1),
        ImageRequest([9], 2, SamplingConfig(top_k=3)),
        ImageRequest([7], 3, SamplingConfig(0.5, top_p=0.9)),
    ]
    together = sample_codes(generator.model, mixed)
    for request, codes_N in zip(mixed, together, strict=True):
        assert torch.equal(sample_codes(generator.model, [request])[0], codes_N)


# --- guidance, completion, ranking -----------------------------------------------------------------------------------


def test_guidance_mixes_the_logits_with_and_without_a_caption(generator):
    """At 0 the caption is not looked at; above 1 it says more than it does alone."""
    blank, with_caption = (sample_codes(generator.model, requests_of(tokens, [1, 2])) for tokens in ([], [5, 6]))
    at_0, at_5 = (
        sample_codes(generator.model, requests_of([5, 6], [1, 2], SamplingConfig(guidance=g))) for g in (0.0, 5.0)
    )
    assert torch.equal(at_0, blank)
    assert not torch.equal(at_5, with_caption) and not torch.equal(at_5, blank)
    assert torch.equal(
        sample_codes(generator.model, requests_of([5, 6], [2], SamplingConfig(guidance=5.0)))[0], at_5[1]
    )


def test_guidance_without_blank_captions_in_training_says_so(checkpoint, tmp_path, capsys):
    message = f"{checkpoint} was trained without --blank-captions"
    run(checkpoint, tmp_path / "a", count=1)
    assert message not in capsys.readouterr().out
    run(checkpoint, tmp_path / "b", "--guidance", 3, count=1)
    assert message in capsys.readouterr().out
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    described = json.loads((copied / "config.json").read_text())
    described["training"]["blank_captions"] = 0.1
    (copied / "config.json").write_text(json.dumps(described))
    run(copied, tmp_path / "c", "--guidance", 3, count=1)
    assert "--blank-captions" not in capsys.readouterr().out


def test_guided_and_unguided_images_are_no_group(generator):
    with pytest.raises(ValueError, match="all with guidance or all without"):
        sample_codes(generator.model, [ImageRequest([5], 1), ImageRequest([5], 1, SamplingConfig(guidance=2.0))])


def test_a_completion_begins_as_given_and_goes_on_as_drawn(generator):
    full = sample_codes(generator.model, requests_of([5, 6], [1]))[0]
    assert torch.equal(
        sample_codes(generator.model, [ImageRequest([5, 6], 1, prefix_codes=full[:24].tolist())])[0], full
    )
    other = sample_codes(generator.model, [ImageRequest([5, 6], 1, prefix_codes=[3] * 24)])[0]
    assert other[:24].tolist() == [3] * 24 and not torch.equal(other[24:], full[24:])


def test_completes_a_image_from_a_file(checkpoint, generator, tmp_path):
    run(checkpoint, tmp_path / "a", count=1)
    run(checkpoint, tmp_path / "b", "--complete", tmp_path / "a" / "0000.png", "--rows", 5, count=2)
    with Image.open(tmp_path / "a" / "0000.png") as a, Image.open(tmp_path / "b" / "0001.png") as b:
        prefix_codes = generator.image_tokenizer.encode(np.array(a))[: 5 * 8]
        assert text_of(b)["given_codes"] == "40"
        drawn = sample_codes(
            generator.model,
            [
                ImageRequest(
                    generator.text_tokenizer.encode("a red cat"), image_seed(7, 1), prefix_codes=prefix_codes.tolist()
                )
            ],
        )[0]
        assert np.array_equal(np.asarray(b), generator.image_tokenizer.decode(drawn.numpy()))


def test_ranking_keeps_the_best_and_says_how_good(generator, tmp_path):
    class Redness:
        def scores(self, caption, images):
            assert caption == "a red cat"
            return [float(image[..., 0].mean()) for image in images]

    drawing.generate(generator, GenerationRequest("a red cat", 6, 0), tmp_path, Ranking(cast(Ranker, Redness()), 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.png", "0001.png", "grid.png"]
    with Image.open(tmp_path / "0000.png") as best, Image.open(tmp_path / "0001.png") as second:
        assert float(text_of(best)["score"]) >= float(text_of(second)["score"])
        assert float(text_of(best)["score"]) == pytest.approx(np.asarray(best)[..., 0].mean(), abs=1e-3)
        assert text_of(best)["index"] != text_of(second)["index"]


@pytest.mark.parametrize(
    "count, columns, shape",
    [(1, None, (2, 3)), (2, None, (2, 6)), (3, None, (4, 6)), (5, None, (4, 9)), (6, 2, (6, 6)), (3, 2, (4, 6))],
)
def test_grids_are_nearly_square_or_as_wide_as_asked(count, columns, shape):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2).repeat(3, 3)
    grid = image_grid(images, columns)
    assert grid.shape == (*shape, 3)
    assert grid[::2, ::3, 0].flatten().tolist() == [*range(count), *[255] * (shape[0] * shape[1] // 6 - count)]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_another_image_tokenizer(checkpoint, tmp_path):
    torch.manual_seed(1)
    other = DVAE(DVAEConfig(hidden=8, vocabulary=64, decoder_input=16, image_size=64))
    save_dvae(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="was trained with another image tokenizer"):
        run(checkpoint, tmp_path / "out", "--image-tokenizer", f"dvae:{tmp_path}/other.safetensors")


def test_the_image_tokenizer_may_have_moved(checkpoint, tiny_dvae, tmp_path):
    shutil.copy(tiny_dvae.removeprefix("dvae:"), tmp_path / "moved.safetensors")
    assert run(checkpoint, tmp_path / "out", "--image-tokenizer", f"dvae:{tmp_path}/moved.safetensors", count=1) == 0


def test_another_text_tokenizer(checkpoint, tmp_path):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    path = copied / "text_tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="was trained with another text tokenizer"):
        load_generator(copied)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "text_tokenizer.json"])
def test_a_missing_file_is_named(checkpoint, tmp_path, name):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    (copied / name).unlink()
    with pytest.raises(UserError, match=name):
        load_generator(copied)


def test_weights_of_another_size(checkpoint, tmp_path):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    described = json.loads((copied / "config.json").read_text())
    described["model"]["width"] = 64
    (copied / "config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"its weights do not have the sizes in config\.json"):
        load_generator(copied)


def test_the_bundled_model_has_learned_colours(tmp_path):
    redness = {}
    for colour in ("red", "blue"):
        arguments = [
            "--prompt",
            f"{colour} heart",
            "--count",
            "4",
            "--output",
            str(tmp_path / colour),
        ]
        assert drawing.main(arguments) == 0
        images = [np.asarray(Image.open(path), np.float64) for path in sorted((tmp_path / colour).glob("[0-9]*.png"))]
        assert {image.shape for image in images} == {(96, 96, 3)}
        redness[colour] = np.mean([image[..., 0] - image[..., 2] for image in images])
    assert redness["red"] > redness["blue"] + 20


@pytest.fixture
def own_checkpoint(checkpoint, tmp_path) -> Path:
    """A checkpoint to change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def change_config(directory: Path, **fields: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "options, used",
    [
        ((), SamplingConfig(top_k=9, guidance=3.0)),
        (("--guidance", 1, "--top-k", 0), SamplingConfig()),
        (("--temperature", 0.5), SamplingConfig(0.5, top_k=9, guidance=3.0)),
    ],
)
def test_the_checkpoints_sampling_holds_where_no_option_names_another(own_checkpoint, tmp_path, options, used):
    change_config(own_checkpoint, sampling={"guidance": 3.0, "top_k": 9})
    run(own_checkpoint, tmp_path / "out", *options, count=1)
    with Image.open(tmp_path / "out" / "0000.png") as image:
        assert json.loads(text_of(image)["sampling"]) == used._asdict()


def test_a_checkpoint_without_sampling_and_prompts_has_the_papers(generator):
    assert (generator.sampling, generator.prompts) == (SamplingConfig(), ())


def test_the_bundled_model_has_sampling_and_prompts():
    bundled = load_generator(checkpoints.BUNDLED_TRANSFORMER)
    assert bundled.sampling == SamplingConfig(temperature=0.1, guidance=1.3)
    assert "red heart" in bundled.prompts


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sampling": {"heat": 1}}, '"sampling" is {"heat": 1}, expected any of temperature'),
        ({"sampling": {"top_p": 1.5}}, '"sampling" is {"top_p": 1.5}, '),
        ({"sampling": {"top_k": 2.5}}, '"sampling" is {"top_k": 2.5}, '),
        ({"sampling": {"guidance": "3"}}, '"sampling" is {"guidance": "3"}, '),
        ({"sampling": None}, '"sampling" is null, '),
        ({"prompts": "a cat"}, '"prompts" is "a cat", expected a list of texts'),
        ({"prompts": ["a cat", " "]}, '"prompts" is '),
    ],
)
def test_a_checkpoints_bad_defaults_are_named(own_checkpoint, fields, message):
    change_config(own_checkpoint, **fields)
    with pytest.raises(UserError, match=rf"own/config\.json: {re.escape(message)}"):
        load_generator(own_checkpoint)


def test_draws_with_the_bundled_model_unless_told_otherwise(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "BUNDLED_TRANSFORMER", checkpoint)
    run(checkpoint, tmp_path / "a", count=1)
    run("bundled", tmp_path / "b", count=1)
    drawing.main(["--prompt", "a red cat", "--count", "1", "--seed", "7", "--output", str(tmp_path / "c")])
    assert len({(tmp_path / name / "0000.png").read_bytes() for name in "abc"}) == 1
    monkeypatch.setattr(checkpoints, "BUNDLED_TRANSFORMER", tmp_path / "none")
    with pytest.raises(UserError, match="--checkpoint DIR is missing: give a folder made by `pairmill train`"):
        run("bundled", tmp_path / "d")


WITHOUT_HEADS = json.dumps(
    {
        "format": "pairmill-transformer",
        "version": 2,
        "model": {"layers": 1, "heads": 0, "width": 8, "text_vocabulary": 9, "image_vocabulary": 9, "rotary": True},
        "training": {"blank_captions": 0.0},
        "text_tokenizer": {"fingerprint": ""},
        "image_tokenizer": {"spec": "", "fingerprint": ""},
    }
).encode()


@pytest.mark.parametrize(
    "name, data",
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model": {}}'),
        ("config.json", b'{"format": "pairmill-transformer", "version": 2, "model": {}}'),
        ("config.json", WITHOUT_HEADS),
        ("model.safetensors", b"x" * 100),
    ],
)
def test_a_damaged_file(checkpoint, tmp_path, name, data):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    (copied / name).write_bytes(data)
    with pytest.raises(UserError, match="is not a readable checkpoint"):
        load_generator(copied)


@pytest.mark.parametrize("command", [drawing.main, app.main], ids=["generate", "serve"])
@pytest.mark.parametrize(
    "field, value, found",
    [
        ("version", 3, '"pairmill-transformer" version 3'),
        ("version", "2", '"pairmill-transformer" version "2"'),
        ("format", "pairmill\ndvae", r'"pairmill\\ndvae" version 2'),
    ],
)
def test_a_checkpoint_of_another_version(checkpoint, tmp_path, command, field, value, found):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    described = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**described, field: value}))
    drawing_options = ["--prompt", "a red cat", "--output", str(tmp_path / "out")]
    others = drawing_options if command is drawing.main else ["--port", "0"]
    expected = f'run/config.json has format {found}, expected "pairmill-transformer" version 2; use the pairmill that'
    with pytest.raises(UserError, match=expected) as error:
        command(["--checkpoint", str(copied), *others])
    assert "\n" not in str(error.value)


def test_an_output_that_is_a_file(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can.t write .*: File exists; a part of the path is a file"):
        run(checkpoint, tmp_path / "file")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--count", 0), "--count 0: give 1 to 1024"),
        (("--count", 10**9), "give 1 to 1024"),
        (("--prompt", "  "), "--prompt is empty"),
        (("--temperature", 0), "--temperature is above 0"),
        (("--temperature", "nan"), "--temperature is above 0"),
        (("--top-p", 1.5), "--top-p above 0"),
        (("--top-k", -1), "--top-k 0 or more"),
        (("--guidance", "inf"), "--guidance 0 or more"),
        (("--rank", 2), "goes with --rank-model"),
        (("--rank", 9, "--rank-model", "/"), "from 1 to --count"),
        (("--rank", 1, "--rank-model", "/"), "holds no open_clip_config.json"),
        (("--rows", 2), "--rows goes with --complete"),
        (("--complete", "/nowhere.png"), "--complete /nowhere.png: No such file"),
        (("--complete", __file__), "is not a readable image"),
        (("--complete", __file__, "--rows", 8), "--rows 8: give 1 to 7"),
        (("--device", "abacus"), "--device abacus: "),
    ],
)
def test_wrong_arguments(checkpoint, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        run(checkpoint, tmp_path, *arguments)
