"""Runs the Python peers on the screens that run.R wrote, and writes their calls.

    python peers.py FOLDER [--crispat model,model,...]

FOLDER/<screen>-<seed>/ holds indptr, guide, count (CSR of cells x guides: int32, int32, float64, little-endian), shape and
lane.txt. It gains guides.h5ad and, for every model that ran, <tool>-<model>.calls: int32 pairs (cell, guide), 0-based.
A model that fails leaves <tool>-<model>.error with the reason.
"""

import argparse
import contextlib
import os
import sys
import tempfile
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


def run_kaichi(path: Path, model: str) -> np.ndarray:
    import kaichi

    # One quantile for both tools: 0.2.0 has two defaults.
    quantile = 0.05 if model == "quantiles" else None
    assigned = kaichi.assign(str(path), model, quantile=quantile, n_jobs=os.cpu_count()).layers["assigned"].tocoo()
    keep = assigned.data > 0
    return np.column_stack([assigned.row[keep], assigned.col[keep]])


# crispat writes its calls to a folder: assignments.csv, or assignments_t<threshold>.csv, with the columns cell and gRNA.
CRISPAT = {
    "umi": lambda c, h5ad, out: c.ga_umi(h5ad, [5], out),
    "max": lambda c, h5ad, out: c.ga_max(h5ad, out),
    "ratio": lambda c, h5ad, out: c.ga_ratio(h5ad, [0.3], out),
    "quantiles": lambda c, h5ad, out: c.ga_quantiles(h5ad, [0.05], out),
    "gauss": lambda c, h5ad, out: c.ga_gauss(h5ad, out, make_plots=False),
    "poisson_gauss": lambda c, h5ad, out: c.ga_poisson_gauss(h5ad, out, make_plots=False),
    "poisson": lambda c, h5ad, out: c.ga_poisson(h5ad, out, parallelize=False),
    "neg_binomial": lambda c, h5ad, out: c.ga_negative_binomial(h5ad, out, parallelize=False),
    "binomial": lambda c, h5ad, out: c.ga_binomial(h5ad, out, parallelize=False),
    "beta2": lambda c, h5ad, out: c.ga_2beta(h5ad, out),
    "beta3": lambda c, h5ad, out: c.ga_3beta(h5ad, out),
}


def run_crispat(path: Path, model: str) -> np.ndarray:
    import crispat

    # It talks on the standard output, which is the table's.
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(sys.stderr):
        CRISPAT[model](crispat, str(path), out + "/")
        tables = [pd.read_csv(f) for f in Path(out).glob("assignments*.csv")]
    calls = pd.concat(tables) if tables else pd.DataFrame({"cell": [], "gRNA": []})
    cell = calls["cell"].astype(str).str.removeprefix("cell").astype(int)
    guide = calls["gRNA"].astype(str).str.removeprefix("guide").astype(int)
    return np.column_stack([cell, guide])


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--crispat", default="", help="models of crispat, separated by commas: " + ", ".join(CRISPAT))
    options = arguments.parse_args()
    crispat_models = [m for m in options.crispat.split(",") if m]
    unknown = set(crispat_models) - set(CRISPAT)
    if unknown:
        sys.exit(f"peers.py knows no crispat model {sorted(unknown)}; it knows {sorted(CRISPAT)}.")
    runs = [("kaichi-0.2.0", model, run_kaichi) for model in KAICHI]
    runs += [("crispat", model, run_crispat) for model in crispat_models]
    warnings.filterwarnings("ignore")
    for folder in sorted(options.folder.iterdir()):
        if not (folder / "shape").exists():
            continue
        path = folder / "guides.h5ad"
        read(folder).write_h5ad(path)
        for tool, model, run in runs:
            name = f"{tool}-{model}"
            try:
                run(path, model).astype("<i4").tofile(folder / f"{name}.calls")
            except Exception as error:  # the table shows a gap and the reason, not a crash
                (folder / f"{name}.error").write_text(f"{type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()
