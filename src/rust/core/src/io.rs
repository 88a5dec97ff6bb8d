//! Readers: one file per format, each the only user of what it needs.

pub mod h5ad;

/// What a guide-count file holds, as the compressed rows of a cells x guides matrix, which are byte for byte the
/// compressed columns of R's guides x cells `dgCMatrix`.
#[derive(Debug, Clone, PartialEq)]
pub struct GuideFile {
    /// Start of each cell's counts; length cells + 1.
    pub indptr: Vec<i32>,
    /// Guide of each count, 0-based, increasing within a cell.
    pub guides: Vec<i32>,
    /// UMIs, whole and > 0 (explicit zeros are dropped).
    pub counts: Vec<f64>,
    pub cell_names: Vec<String>,
    pub guide_names: Vec<String>,
    /// The obs column that was asked for.
    pub batch: Option<Vec<String>>,
}
