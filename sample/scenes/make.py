"""Writes scenes to train on: `python -m sample.scenes.make --count 40000 --output DIR`.

DIR receives `images/NNNNN.tar` in img2dataset's layout for `pairmill encode` (PNG, caption, and the truth as JSON),
`captions.txt` for `pairmill train-bpe`, and `tokenizer.pt`, the image tokenizer of sample.scenes.tokenizer. No held-out
combination is among them. The same options write the same images and captions.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from models.files import write_atomically
from models.image_files import png
from models.pixels import seeded_randint
from sample.scenes.captions import HELD_OUT_OBJECTS, is_held_out, random_caption
from sample.scenes.render import Scene, random_scene, render
from sample.scenes.tokenizer import distinct_cells, tokenizer_file

SCENES_PER_TAR = 1000
OBJECTS = (1, 2, 2, 2, 3, 3, 3, 3)  # of a scene, each as likely as the others


def training_scene(seed: str) -> Scene:
    """The scene of a seed, of one to three objects, without held-out combinations."""
    integers = seeded_randint(seed)
    objects = OBJECTS[integers(0, len(OBJECTS))]
    while True:
        scene = random_scene(random_caption(objects, integers), integers)
        if not has_held_out(scene):
            return scene


def has_held_out(scene: Scene) -> bool:
    """Whether a scene shows a held-out object or fact."""
    return bool(HELD_OUT_OBJECTS & {*scene.caption.objects}) or any(map(is_held_out, scene.facts))


def scene_members(number: int, scene: Scene) -> list[tuple[str, bytes]]:
    """The files of a scene in a tar: its image, its caption, and both as data."""
    key, caption = f"{number:09d}", str(scene.caption)
    objects = [
        thing._asdict() | {"box": box._asdict()} for thing, box in zip(scene.caption.objects, scene.boxes, strict=True)
    ]
    truth = {"key": key, "caption": caption, "objects": objects, "relations": scene.caption.relations}
    return [
        (f"{key}.png", png(render(scene), {})),
        (f"{key}.txt", caption.encode()),
        (f"{key}.json", json.dumps(truth).encode()),
    ]


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar file of these files, the same for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_scenes(output: Path, count: int, seed: int) -> None:
    """Writes all files of the module's description."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    captions: list[str] = []
    for first in range(0, count, SCENES_PER_TAR):
        numbers = range(first, min(first + SCENES_PER_TAR, count))
        scenes = {number: training_scene(f"scene/{seed}/{number}") for number in numbers}
        members = (member for number, scene in scenes.items() for member in scene_members(number, scene))
        write_atomically(output / "images" / f"{first // SCENES_PER_TAR:05d}.tar", tar_bytes(members))
        captions += [str(scene.caption) for scene in scenes.values()]
    write_atomically(output / "captions.txt", "\n".join([*captions, ""]))
    write_atomically(output / "tokenizer.pt", tokenizer_file(distinct_cells()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sample.scenes.make", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=40_000, metavar="N", help="scenes (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    args = parser.parse_args(arguments)
    write_scenes(args.output, args.count, args.seed)
    print(f"{args.count:,} scenes in {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
