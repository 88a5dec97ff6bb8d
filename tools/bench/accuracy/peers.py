"""Runs the Python peers on the screens that run.R wrote, and writes their calls.

    pip install kaichi==0.2.0 crispat==0.9.11 anndata==0.12.19 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 scanpy==1.11.5 \\
        pyro-ppl==1.9.2 torch==2.5.1
    python peers.py [--crispat model,model,... --crispat-seeds A:B] FOLDER ...

Python 3.11 or later. kaichi alone needs kaichi, anndata and what they bring; torch from PyPI is the build with CUDA (6 GB),
https://download.pytorch.org/whl/cpu has one without.

A FOLDER is named <screen>-<seed> and holds indptr, guide, count (CSR of cells x guides: int32, int32, float64,
little-endian), shape and lane.txt. For every model that ran it gains <tool>-<model>.calls: int32 pairs (cell, guide), 0-based.
A model that fails leaves <tool>-<model>.error with the reason. What has calls is not run again, so a run that was stopped goes
on where it was, and two runs may share their folders.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

KAICHI = [
    "umi", "max", "ratio", "quantiles", "poisson_gauss", "poisson", "neg_binomial", "binomial", "beta2", "beta3", "gauss",
]


def read(folder: Path) -> anndata.AnnData:
    n_cells, n_guides = map(int, (folder / "shape").read_text().split())
    counts = np.fromfile(folder / "count", "<f8").astype("int32")
    guide, indptr = np.fromfile(folder / "guide", "<i4"), np.fromfile(folder / "indptr", "<i4")
    counts = sp.csr_matrix((counts, guide, indptr), shape=(n_cells, n_guides))
    lane = (folder / "lane.txt").read_text().split()
    return anndata.AnnData(
        counts,
        obs=pd.DataFrame({"batch": pd.Categorical(lane)}, index=[f"cell{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=[f"guide{i}" for i in range(n_guides)]),
    )


@contextlib.contextmanager
def appears_whole(path: Path):
    """A name to write to, which becomes path at the end: no run finds half a file of a run that was stopped."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def run_kaichi(path: Path, model: str) -> np.ndarray:
    import kaichi

    # One quantile for both tools: 0.2.0 has two defaults.
    quantile = 0.05 if model == "quantiles" else None
    assigned = kaichi.assign(str(path), model, quantile=quantile, n_jobs=os.cpu_count()).layers["assigned"].tocoo()
    keep = assigned.data > 0
    return np.column_stack([assigned.row[keep], assigned.col[keep]])


# Arguments without a default of crispat's (thresholds) are the defaults of kaichi; all others, the cuts of the posteriors
# among them, are crispat's own. A step of these three models draws 15,000 cells, which fails on a screen that has fewer.
CRISPAT = {
    "umi": lambda c, h5ad, out, n: c.ga_umi(h5ad, [5], out),
    "max": lambda c, h5ad, out, n: c.ga_max(h5ad, out),
    "ratio": lambda c, h5ad, out, n: c.ga_ratio(h5ad, [0.3], out),
    "quantiles": lambda c, h5ad, out, n: c.ga_quantiles(h5ad, [0.05], out),
    "gauss": lambda c, h5ad, out, n: c.ga_gauss(h5ad, out, make_plots=False),
    "poisson_gauss": lambda c, h5ad, out, n: c.ga_poisson_gauss(h5ad, out, make_plots=False),
    "poisson": lambda c, h5ad, out, n: c.ga_poisson(h5ad, out, subsample_size=min(15000, n), parallelize=False),
    "neg_binomial": lambda c, h5ad, out, n: c.ga_negative_binomial(h5ad, out, subsample_size=min(15000, n), parallelize=False),
    "binomial": lambda c, h5ad, out, n: c.ga_binomial(h5ad, out, subsample_size=min(15000, n), parallelize=False),
    "beta2": lambda c, h5ad, out, n: c.ga_2beta(h5ad, out),
    "beta3": lambda c, h5ad, out, n: c.ga_3beta(h5ad, out),
}


def write_for_kaichi(folder: Path, path: Path) -> None:
    read(folder).write_h5ad(path)


def write_for_crispat(folder: Path, path: Path) -> None:
    """As crispat's create_anndata_from_cellranger() does: counts as float32, and batches numbered from 1."""
    data = read(folder)
    data.X = data.X.astype("float32")
    data.obs["batch"] = data.obs["batch"].cat.codes.astype("int64") + 1
    data.write_h5ad(path)


def run_crispat(path: Path, model: str) -> np.ndarray:
    os.environ["TQDM_DISABLE"] = "1"
    import crispat
    import torch

    # The tensors are small: more threads only wait for each other.
    torch.set_num_threads(1)
    n_cells = int((path.parent / "shape").read_text().split()[0])
    # crispat makes the folder of its output, and those within, only if there is none. assignments.csv, or
    # assignments_t<threshold>.csv, has a row for every call, of all batches.
    with tempfile.TemporaryDirectory() as parent, open(os.devnull, "w") as talk, contextlib.redirect_stdout(talk):
        CRISPAT[model](crispat, str(path), parent + "/calls/", n_cells)
        (table,) = Path(parent, "calls").glob("assignments*.csv")
        try:
            calls = pd.read_csv(table)
        except pd.errors.EmptyDataError:  # no call at all
            calls = pd.DataFrame({"cell": [], "gRNA": []})
    cell = calls["cell"].astype(str).str.removeprefix("cell").astype(int)
    guide = calls["gRNA"].astype(str).str.removeprefix("guide").astype(int)
    return np.column_stack([cell, guide])


def run_all(folders: list[Path], tool: str, models: list[str], write, run) -> None:
    # A model at a time, so that a run that is stopped leaves whole rows of the tables.
    for model in models:
        for folder in folders:
            calls, failure = folder / f"{tool}-{model}.calls", folder / f"{tool}-{model}.error"
            if calls.exists():
                continue
            start = time.monotonic()
            failure.unlink(missing_ok=True)
            try:
                screen = folder / f"{tool}.h5ad"
                if not screen.exists():
                    with appears_whole(screen) as part:
                        write(folder, part)
                called = run(screen, model)
                with appears_whole(calls) as part:
                    called.astype("<i4").tofile(part)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # the table shows a gap and the reason, not a crash; a panic of Rust is no Exception
                failure.write_text(f"{type(error).__name__}: {error}\n")
            print(f"{folder.name} {tool} {model}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folders", type=Path, nargs="+")
    arguments.add_argument("--crispat", default="", help="models of crispat, separated by commas: " + ", ".join(CRISPAT))
    arguments.add_argument("--crispat-seeds", default="", help="the seeds, A:B, of the folders crispat runs on; default all")
    options = arguments.parse_args()
    crispat_models = [m for m in options.crispat.split(",") if m]
    unknown = set(crispat_models) - set(CRISPAT)
    if unknown:
        sys.exit(f"peers.py knows no crispat model {sorted(unknown)}; it knows {sorted(CRISPAT)}.")
    crispat_folders = options.folders
    if options.crispat_seeds:
        first, last = map(int, options.crispat_seeds.split(":"))
        crispat_folders = [f for f in options.folders if first <= int(f.name.rsplit("-", 1)[1]) <= last]
    warnings.filterwarnings("ignore")
    run_all(options.folders, "kaichi-0.2.0", KAICHI, write_for_kaichi, run_kaichi)
    run_all(crispat_folders, "crispat", crispat_models, write_for_crispat, run_crispat)


if __name__ == "__main__":
    main()
