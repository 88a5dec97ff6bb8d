#' Read guide counts from a file
#'
#' Reads the guide counts that a pipeline wrote, without Python. [assign_guides()] and [score_guides()] take such a path
#' themselves, with the same arguments; `read_guides()` is for looking at the counts first.
#'
#' The format is told by the content, whatever the name. What is chosen for you, as which features are guides, is said in a
#' message of the class `kaichi_message_choice`; where there are several candidates an error names them. Files that lead to other
#' files (external links, external storage, virtual datasets) are refused, as are sizes that nothing in the file stands for.
#'
#' @param path Path of the file or folder: one string. `~` is expanded.
#' @param layer Of an `.h5ad` or `.h5mu`: the name of the layer that holds the raw UMI counts, or `NULL` for `X`.
#' @param ... Must be empty.
#' @param modality Of an `.h5mu`: the name of the modality with the guides. `NULL`: the one that is named for guides, as `guide`,
#'   `gdo` or `crispr`.
#' @param feature_type Which features are guides, where the file says the type of each: one string, as `"Custom"`. `NULL`: the
#'   type that speaks of guides, as `"CRISPR Guide Capture"`, `"CRISPR Direct Capture"` or `"sgRNA"`.
#' @param orientation Of a Matrix Market file, what its rows are: `"guides_by_cells"` or `"cells_by_guides"`. `NULL`: told by the
#'   numbers of names, which a square matrix does not tell.
#'
#' @return A sparse matrix (`dgCMatrix`) of UMI counts, guides in rows and cells in columns, with their names. Counts are whole
#'   numbers; zeros are not stored.
#'
#' @section Formats:
#' \describe{
#'   \item{.h5ad}{As written by anndata 0.7 and later. `X`, or the layer asked for, may be a sparse matrix (`csr_matrix`,
#'     `csc_matrix`) or a dense array, of any integer or floating-point type, uncompressed or compressed with gzip, lzf or zstd, or
#'     with any other filter that the HDF5 library in use can read. If `var` has a column `feature_types`, guides are taken from
#'     among genes by it.}
#'   \item{.h5mu}{As written by mudata: one modality, read like an `.h5ad`.}
#'   \item{10x HDF5}{`filtered_feature_bc_matrix.h5` and `raw_feature_bc_matrix.h5` of Cell Ranger 3 and later.}
#'   \item{molecule_info.h5}{Of Cell Ranger 3 and later: UMIs are counted for each cell and guide. Cells are those that Cell
#'     Ranger called, or if the file does not say them all barcodes with a guide.}
#'   \item{Matrix Market}{The path of the `.mtx`, or of the folder it is in, with the names beside it, gzipped or not:
#'     `features.tsv` or `genes.tsv` and `barcodes.tsv` (10x, STARsolo, CITE-seq-Count), `all_guides.csv` or `all_genes.csv` and
#'     `cell_metadata.csv` (Parse), or named like the matrix, as `cells_x_features.genes.txt` and
#'     `cells_x_features.barcodes.txt` (kallisto). Files may share a prefix, as `GSM1_matrix.mtx`. Rows may be guides or cells.
#'     Features whose type is not said are all taken as guides, unless most are Ensembl genes, which is an error.}
#' }
#'
#' @section Errors:
#' Every error names the file and has the class `kaichi_error` and one of
#' \describe{
#'   \item{`kaichi_error_argument`}{An argument is not one string, or means nothing for the format.}
#'   \item{`kaichi_error_file`}{The file is missing, cut short, of another kind, or has changed while it was read.}
#'   \item{`kaichi_error_format`}{There is no such layer, modality or type, or several may be the guides; the encoding or the
#'     compression is not supported; names and matrix do not belong together; or the file is damaged.}
#'   \item{`kaichi_error_counts`}{A value is not a whole number from 0 to 2147483647, as in normalised data, or there are
#'     no cells or no guides.}
#'   \item{`kaichi_error_names`}{A cell or guide has no name, or shares it with another.}
#' }
#'
#' @examples
#' counts <- read_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' dim(counts)
#' counts[1:3, 1:5]
#'
#' # A folder as Cell Ranger writes it, with guides among genes.
#' folder <- tempfile()
#' dir.create(folder)
#' Matrix::writeMM(counts, file.path(folder, "matrix.mtx"))
#' writeLines(colnames(counts), file.path(folder, "barcodes.tsv"))
#' types <- rep(c("CRISPR Guide Capture", "Gene Expression"), c(3, nrow(counts) - 3))
#' features <- paste(rownames(counts), rownames(counts), types, sep = "\t")
#' writeLines(features, file.path(folder, "features.tsv"))
#' dim(read_guides(folder))
#' unlink(folder, recursive = TRUE)
#' @export
read_guides <- function(path, layer = NULL, ..., modality = NULL, feature_type = NULL, orientation = NULL) {
  check_no_dots("read_guides", ...)
  read_guide_file(path, layer = layer, modality = modality, feature_type = feature_type, orientation = orientation)$counts
}

# Path -> list(counts, batch, guides); `guides` is the guide table that the file has, or NULL. Rust tells the kind of the file by
# its content and checks counts and names.
read_guide_file <- function(path, layer = NULL, batch = NULL, modality = NULL, feature_type = NULL, orientation = NULL,
                            n_jobs = NULL) {
  check_string(path, "path", "the path of a file or folder")
  if (!is.null(layer)) check_string(layer, "layer", "the name of a layer, or NULL for X")
  if (!is.null(modality)) check_string(modality, "modality", "the name of a modality, or NULL")
  if (!is.null(feature_type)) check_string(feature_type, "feature_type", "the type of the features that are guides, or NULL")
  if (!is.null(orientation)) check_choice(orientation, "orientation", c("guides_by_cells", "cells_by_guides"))
  options <- list(layer = layer, batch = batch, modality = modality, feature_type = feature_type, orientation = orientation)
  file <- rust_read(path.expand(path), options, n_jobs)
  if (length(file$choices) > 0L) say_choice(paste(file$choices, collapse = "\n"))
  dimnames <- list(file$guides, file$cells)
  counts <- sparse_of_rust(file$p, file$i, file$x, lengths(dimnames), dimnames)
  guides <- if (length(file$facts) > 0L) as_data_frame(c(list(guide_id = file$guides), file$facts))
  list(counts = counts, batch = file$batch, guides = guides)
}

check_string <- function(value, name, what) {
  if (is.character(value) && length(value) == 1L && !is.na(value)) return(invisible())
  shown <- if (is.character(value) && length(value) == 1L) {
    "NA"
  } else if (is.character(value)) {
    paste(length(value), "strings")
  } else {
    paste("of class", quote_names(class(value)))
  }
  abort("argument", "`", name, "` is ", shown, ". Give one string: ", what, ".")
}
