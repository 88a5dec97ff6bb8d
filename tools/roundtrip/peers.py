"""The Python side of run.R.

    python peers.py make FOLDER          FOLDER has counts.mtx (guides x cells), guides.txt, cells.txt; it gains inputs/ and rna.h5ad
    python peers.py check FOLDER NAME    reads the output NAME as its users do, and compares its calls with pairs.csv
"""

import csv
import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import h5py
import mudata as md
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

GENES = [f"ENSG{i:011d}" for i in range(30)]


def make(folder: Path) -> None:
    counts = scipy.io.mmread(folder / "counts.mtx").tocsr().astype("int32")  # guides x cells
    guides = (folder / "guides.txt").read_text().split("\n")[:-1]
    cells = (folder / "cells.txt").read_text().split("\n")[:-1]
    n_guides, n_cells = counts.shape
    genes = sp.csr_matrix(np.random.default_rng(1).poisson(0.4, (len(GENES), n_cells)).astype("int32"))
    both = sp.vstack([genes, counts]).tocsr()
    types = ["Gene Expression"] * len(GENES) + ["CRISPR Guide Capture"] * n_guides
    to = folder / "inputs"
    to.mkdir()

    def data(matrix, names, kind="csr"):
        x = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda m: m.toarray()}[kind](matrix.T)
        return ad.AnnData(x, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=names))

    for kind in ("csr", "csc", "dense"):
        data(counts, guides, kind).write_h5ad(to / f"{kind}.h5ad")
    data(counts, guides).write_h5ad(to / "gzip.h5ad", compression="gzip")
    data(counts, guides).write_h5ad(to / "lzf.h5ad", compression="lzf")
    mixed = data(both, GENES + guides)
    mixed.var["feature_types"] = types
    mixed.write_h5ad(to / "mixed.h5ad")
    rna = data(genes, GENES)
    rna.write_h5ad(folder / "rna.h5ad")
    md.MuData({"rna": rna.copy(), "guide": data(counts, guides)}).write(to / "guide.h5mu")

    by_cell = both.tocsc()
    with h5py.File(to / "feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(cells, "S")
        matrix["data"], matrix["indices"], matrix["indptr"] = by_cell.data, by_cell.indices.astype("i8"), by_cell.indptr.astype("i8")
        matrix["shape"] = np.array(by_cell.shape, "i4")
        features = matrix.create_group("features")
        features["id"] = features["name"] = np.array(GENES + guides, "S")
        features["feature_type"] = np.array(types, "S")
        features["genome"] = np.array(["GRCh38"] * len(GENES) + [""] * n_guides, "S")

    pairs = counts.tocoo()
    one = np.repeat(np.arange(pairs.nnz), pairs.data)  # a row for each UMI
    barcodes = [cell.split("-")[0] for cell in cells]
    with h5py.File(to / "molecule_info.h5", "w") as file:
        file["barcodes"] = np.array(barcodes, "S")
        file["barcode_idx"], file["feature_idx"] = pairs.col[one].astype("u8"), (pairs.row[one] + len(GENES)).astype("u4")
        file["gem_group"], file["library_idx"] = np.ones(len(one), "u2"), np.zeros(len(one), "u2")
        file["umi"], file["count"] = np.arange(len(one), dtype="u4"), np.full(len(one), 2, "u4")
        features = file.create_group("features")
        features["id"] = features["name"] = np.array(GENES + guides, "S")
        features["feature_type"] = np.array(types, "S")
        features["genome"] = np.array(["GRCh38"] * len(GENES) + [""] * n_guides, "S")
        file["library_info"] = '[{"library_id": 0, "library_type": "CRISPR Guide Capture", "gem_group": 1}]'
        info = file.create_group("barcode_info")
        info["genomes"] = np.array(["GRCh38"], "S")
        info["pass_filter"] = np.array([(i, 0, 0) for i in range(n_cells)], "u8")
        file.attrs["file_version"] = 6

    def text(path, lines, zipped=False):
        path.parent.mkdir(exist_ok=True)
        with (gzip.open(path, "wt") if zipped else open(path, "w")) as out:
            out.writelines(f"{line}\n" for line in lines)

    def matrix(path, values, zipped=False):
        path.parent.mkdir(exist_ok=True)
        scipy.io.mmwrite(path, values.tocoo(), field="integer")
        if zipped:
            with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as out:
                shutil.copyfileobj(plain, out)
            path.unlink()

    v3 = to / "mtx-v3"
    matrix(v3 / "matrix.mtx", both, True)
    text(v3 / "features.tsv.gz", [f"{name}\t{name}\t{kind}" for name, kind in zip(GENES + guides, types)], True)
    text(v3 / "barcodes.tsv.gz", cells, True)
    v2 = to / "mtx-v2"
    matrix(v2 / "matrix.mtx", counts)
    text(v2 / "genes.tsv", [f"{name}\t{name}" for name in guides])
    text(v2 / "barcodes.tsv", cells)
    kite = to / "kite"
    matrix(kite / "cells_x_features.mtx", counts.T)
    text(kite / "cells_x_features.genes.txt", guides)
    text(kite / "cells_x_features.barcodes.txt", cells)
    parse = to / "parse"
    matrix(parse / "count_matrix.mtx", counts.T)
    text(parse / "all_guides.csv", ["gene_id,gene_name,genome", *(f"{name},{name},x" for name in guides)])
    text(parse / "cell_metadata.csv", ["bc_wells,sample", *(f"{cell},s1" for cell in cells)])
    star = to / "starsolo"
    matrix(star / "matrix.mtx", counts)
    text(star / "features.tsv", [f"{name}\t{name}\tCRISPR Guide Capture" for name in guides])
    text(star / "barcodes.tsv", cells)


def pairs_of(assigned, cells, guides):
    assigned = sp.coo_matrix(assigned)
    return {(cells[i], guides[j]) for i, j in zip(assigned.row, assigned.col)}


def check(folder: Path, name: str) -> str:
    with open(folder / "pairs.csv", newline="") as file:
        wanted = {(row["cell_barcode"], row["guide_id"]): int(row["umi_count"]) for row in csv.DictReader(file)}
    path = folder / name
    reader = ""
    if name.endswith(".h5ad"):
        data, reader = ad.read_h5ad(path), "anndata"
        assert pairs_of(data.layers["assigned"], data.obs_names, data.var_names) == set(wanted)
        at = pd.DataFrame(wanted.keys(), columns=["cell", "guide"])
        umis = data.X[data.obs_names.get_indexer(at.cell), data.var_names.get_indexer(at.guide)]
        assert np.array_equal(np.asarray(umis).ravel(), list(wanted.values()))
        assert (data.obs["n_guides_detected"] == data.obs_names.map(at.groupby("cell").size()).fillna(0)).all()
        assert data.uns["kaichi"]["model"] == "poisson_gauss"
        # kaichi 0.2.0 panics on lzf, which what goes from file to file keeps.
        if "scores" in data.layers and "lzf" not in folder.name and (cli := os.environ.get("KAICHI_TEST_CLI")):
            decided = folder / "decided.h5ad"
            command = [cli, "decide", "--scores", path, "--min-confidence", "0.8", "--output", decided]
            subprocess.run(command, check=True, capture_output=True)
            again = ad.read_h5ad(decided)
            assert pairs_of(again.layers["assigned"], again.obs_names, again.var_names) == set(wanted)
            reader += ", decide of kaichi 0.2.0"
    elif name.endswith(".h5mu"):
        data, reader = md.read_h5mu(path), "mudata"
        guide = data.mod["guide"]
        assert pairs_of(guide.layers["assigned"], guide.obs_names, guide.var_names) == set(wanted)
        if name == "rna.h5mu":
            assert list(data.mod) == ["rna", "guide"] and data.mod["rna"].shape == (guide.n_obs, len(GENES))
    elif name in ("calls.csv", "calls.csv.gz"):
        table, reader = pd.read_csv(path), "pandas"
        assert dict(zip(zip(table.cell_barcode, table.guide_id), table.umi_count)) == wanted
    elif name == "crispat.csv":
        table, reader = pd.read_csv(path), "pandas"
        assert dict(zip(zip(table.cell, table.gRNA), table.UMI_counts)) == wanted
    else:
        table, reader = pd.read_csv(path / "protospacer_calls_per_cell.csv"), "pandas"
        got = {}
        for row in table.itertuples():
            split = [str(value).split("|") for value in (row.feature_call, row.num_umis)]
            assert len(split[0]) == row.num_features
            got.update({(row.cell_barcode, guide): int(n) for guide, n in zip(*split)})
        assert got == wanted
        summary = pd.read_csv(path / "protospacer_calls_summary.csv")
        assert list(summary.feature_call[:4]) == [
            "No guide molecules", "No confident call", "1 protospacer assigned", "More than 1 protospacer assigned",
        ]
    return f"{name} ({reader})"


def main() -> None:
    match sys.argv[1:]:
        case ["make", folder]:
            make(Path(folder))
        case ["check", folder, name]:
            print(check(Path(folder), name))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
