"""Images/s, processor time and memory of `pairmill fetch --resize 256`, beside img2dataset on the same list.

    python -m benchmarks.fetch [--pairs N] [--rounds R] [--latency-pairs N] [--hosts N ...] [--widths LOW HIGH]
        [--img2dataset PROGRAM]

Photographs of about 100 KB are made from those in `sample/` and served on the loopback, by nginx if it is installed
(Debian: apt-get install nginx-light), else by benchmarks/web_server.py. Both programs write JPEGs of 256 px on the
shorter side into tar files, with captions and hashes; they take turns, and of each the best round counts. Then both
fetch from hosts that answer after 50 to 2,000 ms, each by its name, one in twenty of them dead: half of these drop what
is sent to them, half never answer once connected. pairmill keeps its default limits there, and fetches the same list
without dead hosts as well; img2dataset has its own defaults, by which it asks for each image once, for 10 s. Small
photographs (--widths 400 480) take little processor time, so that waiting decides, as on more cores or quicker ones.
img2dataset: `make peers` installs it; one of another environment is named by --img2dataset.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from benchmarks import slow_hosts
from benchmarks.serving import nginx, own_server
from models import pixels
from models.text_table import table
from pipeline.output.files import write_file
from pipeline.output.ledger import build_ledger, write_ledger
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import PAIRS
from pipeline.records import Pair

SAMPLE = Path(__file__).parent.parent / "sample" / "images"
PHOTOGRAPHS = 400  # different ones; a query tells the URLs apart
WIDTHS = (640, 1_280)  # px, from and to
SIDE = 256
HOSTS = (200, 2_000, 20_000)
SET_CHILD_SUBREAPER = 36  # of prctl(2)


class Run(NamedTuple):
    """What one run of a program took."""

    images: int
    seconds: float
    cpu_s: float  # of all its processes
    memory_mb: float  # of all its processes, at the worst moment, shared pages counted once
    process_mb: float  # of the largest

    @property
    def rate(self) -> float:
        return self.images / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s / self.images * 1000


# --- what is fetched -------------------------------------------------------------------------------------------------


def make_photographs(folder: Path, widths: tuple[int, int] = WIDTHS) -> float:
    """Four images of the sample side by side, scaled to widths in this range. Returns the mean size in bytes."""
    images = [pixels.decode_rgb(path.read_bytes()) for path in sorted(SAMPLE.glob("*.jpg"))]
    tiles = [rgb_HWC[:240, :360] for rgb_HWC in images if rgb_HWC.shape[0] >= 240 and rgb_HWC.shape[1] >= 360]
    rng = np.random.default_rng(0)
    sizes = []
    for number in range(PHOTOGRAPHS):
        four = [tiles[i] for i in rng.choice(len(tiles), 4, replace=False)]
        joined = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
        width = int(rng.integers(widths[0], widths[1] + 1))
        scaled = cv2.resize(joined, (width, width * 2 // 3), interpolation=cv2.INTER_CUBIC)
        data = simplejpeg.encode_jpeg(scaled, quality=int(rng.integers(60, 86)), colorsubsampling="420")
        (folder / f"{number}.jpg").write_bytes(data)
        sizes.append(len(data))
    return sum(sizes) / len(sizes)


def write_lists(folder: Path, urls: list[str]) -> None:
    """The same list for both: pairs of `pairmill select`, and a Parquet file for img2dataset."""
    captions = [f"photograph number {number} of a list" for number in range(len(urls))]
    pairs = [
        Pair(
            key=f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{0:016x}",
            source="cc3m",
            file="list.tsv",
            row=number,
            url=url,
            fallback_urls=[],
            caption=caption,
            raw_caption=caption,
            width=None,
            height=None,
            licence="",
            page_url="",
            split="train",
        )
        for number, (url, caption) in enumerate(zip(urls, captions, strict=True))
    ]
    write_file(str(folder / "pairs"), "pairs/00000-of-00001.parquet", table_bytes(pairs, PAIRS))
    counts = [(("cc3m", what, ""), len(urls)) for what in ("read", "kept")]
    write_ledger(str(folder / "pairs"), build_ledger(counts, ["cc3m"]))
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")


# --- running and measuring -------------------------------------------------------------------------------------------


def measured(command: list[str], log: Path) -> tuple[float, float, float, float]:
    """Seconds, processor seconds, MB at the worst moment, MB of the largest process. Raises if the command fails."""
    before, started = os.times(), time.perf_counter()
    with open(log, "wb") as file:
        running = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
        )
        peak = _Memory(running.pid)
        status = running.wait()
    seconds = time.perf_counter() - started
    peak.stop()
    for process in _session(running.pid):  # helpers that outlive their program have become our children
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
    after = os.times()
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}\n{log.read_text()[-2000:]}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu_s, peak.all_mb, peak.largest_mb


class _Memory(threading.Thread):
    """Looks at the memory of a session's processes twice a second."""

    def __init__(self, session: int):
        super().__init__(daemon=True)
        self._session, self._stop_event = session, threading.Event()
        self.all_mb = self.largest_mb = 0.0
        self.start()

    def run(self) -> None:
        while not self._stop_event.wait(0.5):
            sizes = [_size_mb(process) for process in _session(self._session)]
            self.all_mb = max(self.all_mb, sum(sizes))
            self.largest_mb = max([self.largest_mb, *sizes])

    def stop(self) -> None:
        self._stop_event.set()
        self.join()


def _session(leader: int) -> Iterator[int]:
    """The processes of a session."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                yield int(process.name)


def _size_mb(process: int) -> float:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
    return 0.0


def run_pairmill(work: Path, options: list[str]) -> Run:
    output = work / "pairmill"
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "fetch",
        f"--pairs={work / 'pairs'}",
        f"--output={output}",
        f"--resize={SIDE}",
        "--allow-address=127.0.0.0/8",
        *options,
    ]
    took = measured(command, work / "pairmill.log")
    return Run(_successes(output), *took)


def run_img2dataset(program: str, work: Path) -> Run:
    output = work / "img2dataset"
    command = [
        program,
        f"--url_list={work / 'list.parquet'}",
        "--input_format=parquet",
        "--url_col=url",
        "--caption_col=caption",
        f"--output_folder={output}",
        "--output_format=webdataset",
        f"--image_size={SIDE}",
        "--resize_mode=keep_ratio",
        "--resize_only_if_bigger=True",
        f"--processes_count={os.cpu_count()}",
        "--thread_count=64",
        "--number_sample_per_shard=1000",
        "--enable_wandb=False",
    ]
    took = measured(command, work / "img2dataset.log")
    return Run(_successes(output), *took)


def _successes(output: Path) -> int:
    """By the statistics, which are the same for both; then the output goes."""
    count = sum(json.loads(path.read_bytes())["successes"] for path in output.glob("*_stats.json"))
    shutil.rmtree(output)
    return count


def floor_ms(folder: Path) -> float:
    """Processor milliseconds an image of what nobody is spared: decoding at a reduced scale, resizing, encoding."""
    photographs = [path.read_bytes() for path in folder.iterdir()]
    cv2.setNumThreads(1)
    started = time.process_time()
    for data in photographs:
        rgb = simplejpeg.decode_jpeg(data, min_height=SIDE, min_width=SIDE)
        scale = SIDE / min(rgb.shape[:2])
        size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
        simplejpeg.encode_jpeg(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), 95, colorsubsampling="420")
    return (time.process_time() - started) / len(photographs) * 1000


def best_of(title: str, rounds: int, programs: dict[str, Callable[[], Run]]) -> dict[str, Run]:
    """Lets programs take turns. Prints, and returns, each one's best round."""
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for _, (name, program) in itertools.product(range(rounds), programs.items()):
        runs[name].append(program())
        print(f"  {name}: {runs[name][-1]}", flush=True)
    best = {name: min(found, key=lambda run: run.seconds / run.images) for name, found in runs.items()}
    rows = [
        (
            name,
            run.images,
            round(run.seconds, 1),
            round(run.rate, 1),
            round(run.cpu_ms, 2),
            round(run.memory_mb),
            round(run.process_mb),
        )
        for name, run in best.items()
    ]
    print(
        f"\n{title}\n"
        + table(["", "images", "s", "images/s", "CPU ms an image", "MB in all", "MB of the largest process"], rows)
    )
    return best


def print_ratios(ours: Run, other: Run, whose: str) -> None:
    print(f"images/s: {ours.rate / other.rate:.2f} of {whose}; CPU an image: {ours.cpu_ms / other.cpu_ms:.2f} of it")


def compare_quick(work: Path, folder: Path, pairs: int, rounds: int, peer: str | None, floor: float) -> None:
    """One host that answers at once: what the programs themselves take."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    with nginx(program, folder, work) if program else own_server(folder) as port:
        write_lists(work, [f"http://127.0.0.1:{port}/{n % PHOTOGRAPHS}.jpg?{n}" for n in range(pairs)])
        options = ["--per-host-connections=64", "--per-host-rate=100000"]
        programs = {PAIRMILL: partial(run_pairmill, work, options)} | img2dataset(peer, work)
        server = "nginx" if program else "benchmarks/web_server.py"
        best = best_of(f"One host, no latency, {os.cpu_count()} cores, served by {server}", rounds, programs)
    for name, run in best.items():
        print(f"{name}: {run.cpu_ms - floor:.2f} CPU ms an image beside decoding, averaging and encoding")
    if peer:
        print_ratios(best[PAIRMILL], best[IMG2DATASET], IMG2DATASET)


def compare_slow(work: Path, folder: Path, pairs: int, hosts: int, rounds: int, peer: str | None) -> None:
    """Slow hosts, some of them dead; the list has each at least once."""
    pairs = max(pairs, hosts)
    with own_server(folder, "--latency", "0.05", "2") as port, slow_hosts.dead_hosts(port) as ports:
        lists = {"dead": ports, "alive": slow_hosts.Ports(port, port, port)}
        for name, used in lists.items():
            (work / name).mkdir()
            write_lists(work / name, [slow_hosts.url(n, hosts, PHOTOGRAPHS, used) for n in range(pairs)])
        programs = {
            PAIRMILL: partial(run_pairmill, work / "dead", []),
            ALIVE: partial(run_pairmill, work / "alive", []),
        }
        title = f"{hosts} hosts, 50 to 2,000 ms, one in {slow_hosts.DEAD_EVERY} dead; polite defaults"
        best = best_of(title, rounds, programs | img2dataset(peer, work / "dead"))
    print_ratios(best[PAIRMILL], best[ALIVE], ALIVE)
    if peer:
        print_ratios(best[PAIRMILL], best[IMG2DATASET], IMG2DATASET)
    for name in lists:
        shutil.rmtree(work / name)


PAIRMILL, ALIVE, IMG2DATASET = "pairmill", "pairmill without dead hosts", "img2dataset"


def img2dataset(program: str | None, work: Path) -> dict[str, Callable[[], Run]]:
    return {IMG2DATASET: partial(run_img2dataset, program, work)} if program else {}


def find_img2dataset(given: str | None) -> str | None:
    program = given or shutil.which("img2dataset", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        print("img2dataset is not installed: make peers, or --img2dataset PROGRAM; measured alone")
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=10_000, metavar="N", help="0: leave this part out")
    parser.add_argument("--latency-pairs", type=int, default=10_000, metavar="N", help="0: leave this part out")
    parser.add_argument("--hosts", type=int, nargs="+", default=HOSTS, metavar="N", help="of that part, a run for each")
    parser.add_argument("--rounds", type=int, default=2, metavar="R")
    parser.add_argument(
        "--widths", type=int, nargs=2, default=WIDTHS, metavar="PX", help="of the photographs, from, to"
    )
    parser.add_argument("--img2dataset", metavar="PROGRAM", help="its command, if it is not on the path")
    args = parser.parse_args()
    # Processes whose parent has ended become ours, so that their processor time is counted.
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    peer = find_img2dataset(args.img2dataset)
    with tempfile.TemporaryDirectory() as temporary:
        work, folder = Path(temporary), Path(temporary) / "photographs"
        folder.mkdir()
        for path in (work, folder):
            path.chmod(0o755)  # nginx's worker is another user if root started it
        mean, floor = make_photographs(folder, args.widths), floor_ms(folder)
        print(
            f"{PHOTOGRAPHS} photographs, {mean / 1000:.0f} KB on average; the floor (decode at a reduced scale, "
            f"average, encode): {floor:.2f} CPU ms an image"
        )
        if args.pairs:
            compare_quick(work, folder, args.pairs, args.rounds, peer, floor)
        if args.latency_pairs:
            with slow_hosts.resolver(work / "resolver"):
                for hosts in args.hosts:
                    compare_slow(work, folder, args.latency_pairs, hosts, args.rounds, peer)


if __name__ == "__main__":
    main()
