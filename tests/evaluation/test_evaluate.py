"""`pairmill evaluate`: its numbers are those of the parts that have them, and its options fit together."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from models import pixels
from models.errors import UserError
from models.evaluation.evaluate import main
from models.evaluation.loss import load_for_losses
from models.evaluation.reconstruction import first_images, perplexity
from models.evaluation.similarity import psnr, ssim
from models.sampling.checkpoint import load_generator, read_config
from models.sampling.sampler import ImageRequest, image_seed, sample_codes
from models.scoring.embedder import Embedder, cosines
from models.scoring.model_folder import load_model, model_files
from models.tokenizers.image import load_image_tokenizer
from models.training.distributed import World
from models.training.options import TransformerTrainingConfig
from models.training.validation import Validation
from tests.support.contrastive import write_model
from tests.support.datasets import CAPTIONS, DISTINCT_CAPTIONS, write_dataset
from tests.support.images import jpeg, write_image_tar


@pytest.fixture(scope="module")
def dataset(tiny_dvae, tmp_path_factory) -> Path:
    """With the tokenizers of `tiny_checkpoint`."""
    folder = tmp_path_factory.mktemp("evaluated") / "dataset"
    write_dataset(
        folder, train=(6,), val=(4, 3), image=load_image_tokenizer(tiny_dvae).info, captions=DISTINCT_CAPTIONS
    )
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "clip")


def run(output: Path, *options: object) -> dict:
    assert main([str(option) for option in (*options, "--device", "cpu", "--threads", 1, "--output", output)]) == 0
    return json.loads(output.read_text())


def test_losses_are_those_of_the_trainer(tiny_checkpoint, dataset, tmp_path, capsys):
    report = run(tmp_path / "r.json", "--checkpoint", tiny_checkpoint, "--dataset", dataset, "--batch-size", 2)["loss"]
    model, predicts_text = load_for_losses(tiny_checkpoint, read_config(tiny_checkpoint))
    assert predicts_text
    expected, by_source = Validation.read(dataset, TransformerTrainingConfig(1, 4, 1e-3), World()).losses(model)
    assert {name: report[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert report["pairs"] == 7 and report["by_source"].keys() == by_source.keys()
    for source, losses in by_source.items():
        assert report["by_source"][source] == pytest.approx(losses, rel=1e-5)
    table = capsys.readouterr().out
    assert f"{expected['image']:,.4f}" in table and "cc12m" in table


def test_a_folder_to_sample_from_has_no_loss_of_text(tiny_checkpoint, dataset, tmp_path, capsys):
    options = ("--dataset", dataset, "--limit", 3, "--averaged")
    whole = run(tmp_path / "a.json", "--checkpoint", tiny_checkpoint, *options)["loss"]
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy, ignore=shutil.ignore_patterns("checkpoint*"))
    alone = run(tmp_path / "b.json", "--checkpoint", copy, *options)["loss"]
    assert alone["pairs"] == whole["pairs"] == 3
    assert alone["text"] is None and alone["total"] is None and whole["text"] > 0
    assert alone["image"] == pytest.approx(whole["image"], rel=1e-2)  # its weights have 16 bits
    assert " -" in capsys.readouterr().out


def test_the_training_split_has_its_sources(tiny_checkpoint, dataset, tmp_path):
    report = run(tmp_path / "r.json", "--checkpoint", tiny_checkpoint, "--dataset", dataset, "--split", "train")
    assert {name: row["pairs"] for name, row in report["loss"]["by_source"].items()} == {
        "cc12m": 2,
        "cc3m": 2,
        "wit": 2,
    }


def test_samples_beside_the_split(tiny_checkpoint, dataset, clip, tmp_path, capsys):
    options = ("--samples", 5, "--model", clip, "--seed", 3, "--limit", 1)
    report = run(tmp_path / "r.json", "--checkpoint", tiny_checkpoint, "--dataset", dataset, *options)["samples"]
    generator = load_generator(tiny_checkpoint)
    captions = [DISTINCT_CAPTIONS[i] for i in (0, 1, 2, 3, 0)]
    requests = [
        ImageRequest(generator.text_tokenizer.encode(caption), image_seed(3, i)) for i, caption in enumerate(captions)
    ]
    embedder = Embedder(load_model(model_files(clip)))
    images = map(generator.image_tokenizer.decode, sample_codes(generator.model, requests).numpy())
    prepared = [embedder.prepare(image, caption) for image, caption in zip(images, captions, strict=True)]
    expected = max(0.0, 100 * float(cosines(embedder.embed(prepared)).mean()))
    assert report["images"] == 5 and report["clip_fid"] > 0
    assert report["sampled"]["clip_score"] == pytest.approx(expected, abs=0.1)  # those embeddings have 16 bits
    for name in ("sampled", "split"):
        for direction in ("captions_by_image", "images_by_caption"):
            assert report[name][direction]["recall@5"] == 1
    assert report["judges"]["clip"]["model"] == str(clip)
    assert "images by caption, recall@1" in capsys.readouterr().out


def write_damaged_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate((jpeg(seed=0), jpeg(seed=1)[:50], jpeg(seed=2))):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_reconstruction(tiny_dvae, clip, tmp_path, capsys):
    write_damaged_tar(tmp_path / "images.tar")
    options = ("--image-tokenizer", tiny_dvae, "--images", tmp_path / "*.tar", "--model", clip)
    report = run(tmp_path / "r.json", *options)["reconstruction"]
    tokenizer = load_image_tokenizer(tiny_dvae)
    pairs = []
    for seed in (0, 2):
        image = pixels.apply_crop(pixels.decode_rgb(jpeg(seed=seed)), pixels.centre_crop(200, 150, 64), 64)
        pairs.append((image, tokenizer.decode(tokenizer.encode(image))))
    assert report["images"] == 2 and report["damaged"] == 1
    assert report["psnr"] == pytest.approx(np.mean([psnr(*pair) for pair in pairs]))
    assert report["ssim"] == pytest.approx(np.mean([ssim(*pair) for pair in pairs]))
    assert report["clip_rfid"] > 0 and 1 <= report["perplexity"] <= report["codes_used"] <= 64
    assert "PSNR, dB" in capsys.readouterr().out


def test_images_that_the_trainer_holds_out_come_first(tmp_path):
    write_image_tar(tmp_path / "images.tar", 60)
    names = [member.name for member in first_images(str(tmp_path / "images.tar"), 60)]
    assert len(names) == 60 and names != sorted(names)
    assert [member.name for member in first_images(str(tmp_path / "images.tar"), 4)] == names[:4]


def test_perplexity():
    assert perplexity(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(np.array([7])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --dataset DIR"),
        (["--dataset", "d", "--limit", "0"], "--limit and --batch-size start at 1"),
        (["--dataset", "d", "--samples", "4"], "goes with --dataset and a judge"),
        (["--dataset", "d", "--samples", "1", "--model", "m"], "--samples N, from 2"),
        (["--dataset", "d", "--model", "m"], "judge images"),
        (["--dataset", "d", "--lpips", "m"], "--lpips goes with --images"),
        (["--dataset", "d", "--top-p", "7"], "--top-p above 0"),
        (["--images", "/nowhere/*.tar", "--image-tokenizer", "bundled"], "no such file"),
        (["--dataset", "d", "--checkpoint", "/nowhere"], "/nowhere/config.json does not exist"),
    ],
)
def test_wrong_usage(options, said):
    with pytest.raises(UserError, match=said):
        main(options)


def test_a_dataset_of_other_tokens(tiny_checkpoint, tmp_path):
    write_dataset(tmp_path / "other", captions=CAPTIONS)
    with pytest.raises(UserError, match=r"another image tokenizer than those of .*other"):
        main(["--checkpoint", str(tiny_checkpoint), "--dataset", str(tmp_path / "other")])


def test_weights_that_do_not_fit(tiny_checkpoint, tmp_path):
    config = read_config(tiny_checkpoint)
    with pytest.raises(UserError, match=r"do not have the sizes in config\.json"):
        load_for_losses(tiny_checkpoint, config | {"model": config["model"] | {"width": 64}})
    with pytest.raises(UserError, match=r"lacks the weight blocks\.3"):
        load_for_losses(tiny_checkpoint, config | {"model": config["model"] | {"layers": 4}})
    assert isinstance(load_for_losses(tiny_checkpoint, config)[0].text_head, torch.nn.Linear)
