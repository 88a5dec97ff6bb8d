"""The Python side of the speed bench: writes the screens, and runs one job in this process.

    python peers.py write FOLDER [--gzip]     FOLDER holds indptr, guide, count (CSR of cells x guides: int32, int32, float64,
                                              little-endian) and shape; it gains plain.h5ad, and gzip.h5ad
    python peers.py floor FILE.h5ad           reads the arrays of X, and the names, with h5py
    python peers.py kaichi FILE.h5ad MODEL JOBS   kaichi.assign() of PyPI

The last two print one line: seconds of wall and CPU time, without the start of Python, and peak memory in MB.
"""

import resource
import sys
import time
from pathlib import Path


def write(folder: Path, gzip: bool) -> None:
    import anndata
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    n_cells, n_guides = map(int, (folder / "shape").read_text().split())
    counts = np.fromfile(folder / "count", "<f8").astype("float32")
    guide, indptr = np.fromfile(folder / "guide", "<i4"), np.fromfile(folder / "indptr", "<i4")
    # Distinct barcodes of 16 bases in no order, as of a droplet experiment: a bijection of 32 bits, in base 4.
    codes = np.arange(n_cells, dtype=np.uint64) * 2654435761 % 2**32
    bases = np.frombuffer(b"ACGT", "S1")[((codes[:, None] >> (2 * np.arange(16, dtype=np.uint64))) & 3).astype(int)]
    barcodes = np.char.add(np.ascontiguousarray(bases).view("S16").ravel().astype("U16"), "-1")
    data = anndata.AnnData(
        sp.csr_matrix((counts, guide, indptr), shape=(n_cells, n_guides)),
        obs=pd.DataFrame(index=barcodes),
        var=pd.DataFrame(index=[f"guide_{i:05d}" for i in range(n_guides)]),
    )
    data.write_h5ad(folder / "plain.h5ad")
    if gzip:
        data.write_h5ad(folder / "gzip.h5ad", compression="gzip")


def timed(job) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def floor(path: str) -> None:
    import h5py

    def read():
        with h5py.File(path) as file:
            held = [file["X"][name][:] for name in ("data", "indices", "indptr")]
            held += [file[frame][file[frame].attrs["_index"]][:] for frame in ("obs", "var")]
            return held

    timed(read)


def kaichi(path: str, model: str, jobs: str) -> None:
    import kaichi

    # One quantile for both tools: 0.2.0 has two defaults.
    quantile = 0.05 if model == "quantiles" else None
    timed(lambda: kaichi.assign(path, model, quantile=quantile, n_jobs=int(jobs)))


def main() -> None:
    match sys.argv[1:]:
        case ["write", folder, *rest] if rest in ([], ["--gzip"]):
            write(Path(folder), bool(rest))
        case ["floor", path]:
            floor(path)
        case ["kaichi", path, model, jobs]:
            kaichi(path, model, jobs)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
