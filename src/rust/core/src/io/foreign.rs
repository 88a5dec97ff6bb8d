//! Formats that kaichi does not read: their names, and a line that makes of them what it does.
use std::io::Read;
use std::path::Path;

use hdf5::{File, LocationType};

use super::h5ad::values::Source;
use super::text;

/// What to say of a folder that is a zarr store; none of another.
pub(super) fn folder(path: &Path) -> Option<String> {
    let has = |name: &str| path.join(name).exists();
    if !(has(".zgroup") || has("zarr.json") || has(".zattrs")) {
        return None;
    }
    let module = if has("mod") { "import mudata; mudata" } else { "import anndata; anndata" };
    let end = if has("mod") { "h5mu" } else { "h5ad" };
    Some(format!(
        "is a zarr store, which kaichi does not read.\n  Convert it in Python: {module}.read_zarr({:?}).write(\"guides.{end}\")",
        path.display().to_string()
    ))
}

/// What to say of an HDF5 file of another tool; none if it is of none that is known.
pub(super) fn hdf5(file: &File, path: &Path) -> Option<String> {
    let path = path.display().to_string();
    let has = |name: &str| file.link_exists(name);
    let is_dataset = |name: &str| matches!(file.loc_type_by_name(name), Ok(LocationType::Dataset));
    if has("row_attrs") && has("col_attrs") && is_dataset("matrix") {
        return Some(format!(
            "is a loom file, which kaichi does not read.\n  Convert it in Python: import scanpy; \
             scanpy.read_loom({path:?}).write_h5ad(\"guides.h5ad\")"
        ));
    }
    if has("assays") && has("meta.data") && has("cell.names") {
        return Some(format!(
            "is an h5Seurat file, which kaichi does not read.\n  Load it in R and give the object: \
             x <- SeuratDisk::LoadH5Seurat({path:?}); assign_guides(x)"
        ));
    }
    None
}

/// What to say of a file of another tool that is no HDF5, by its first bytes.
pub(super) fn file(source: Source) -> Option<String> {
    let path = source.0.display().to_string();
    let mut head = vec![];
    // Packed with gzip, as saveRDS() does. What cannot be inflated is told by others.
    text::open(source).ok()?.take(8).read_to_end(&mut head).ok()?;
    let words = match &head[..] {
        [b'X' | b'A' | b'B', b'\n', ..] => format!(
            "is an R object, as saveRDS() writes it.\n  Give the object instead of the path: assign_guides(readRDS({path:?}))"
        ),
        [b'R', b'D', b'X' | b'A', b'2' | b'3', ..] => {
            format!("holds R objects, as save() writes them.\n  load({path:?}) in R and give the object instead of the path.")
        }
        [b'P', b'A', b'R', b'1', ..] => format!(
            "is a Parquet file, which kaichi does not read.\n  Convert it in Python: import pandas; \
             pandas.read_parquet({path:?}).to_csv(\"guides.csv\")"
        ),
        [b'P', b'K', 3, 4, ..] => "is a zip archive or an Excel workbook, which kaichi does not read.\n  Unpack it, or save the \
                                    sheet as CSV."
            .to_owned(),
        [b'B', b'Z', b'h', ..] => "is compressed with bzip2, which kaichi does not read.\n  Unpack it, or pack it with gzip.".to_owned(),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            "is compressed with xz, which kaichi does not read.\n  Unpack it, or pack it with gzip.".to_owned()
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "is compressed with zstd, which kaichi does not read.\n  Unpack it, or pack it with gzip.".to_owned()
        }
        _ => return None,
    };
    Some(words)
}
