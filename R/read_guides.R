#' Read guide counts from a file
#'
#' Reads the guide counts that a pipeline wrote, without Python. [assign_guides()] and [score_guides()] take such a path
#' themselves, with the same arguments; `read_guides()` is for looking at the counts first.
#'
#' The format is detected from the content, whatever the name. Automatic choices, such as which features are guides, are reported in
#' messages of the class `kaichi_message_choice`; where there are several candidates an error names them. Files that lead to other
#' files (external links, external storage, virtual datasets) are refused, as are sizes that nothing in the file stands for.
#'
#' @param path Path of the file or folder: one string. `~` is expanded. Several files are one screen, see Several files.
#' @param layer The name of the layer of an `.h5ad` or `.h5mu` that holds the raw UMI counts; `"raw"` for its `raw`. If `NULL`, `X`.
#' @param ... Must be empty.
#' @param modality Of an `.h5mu`: the name of the modality with the guides. `NULL`: the one that is named for guides, as `guide`,
#'   `gdo` or `crispr`.
#' @param feature_type Which features are guides, where the file says the type of each: one string, as `"Custom"`. `NULL`: the
#'   type that speaks of guides, as `"CRISPR Guide Capture"`, `"CRISPR Direct Capture"` or `"sgRNA"`.
#' @param orientation What the rows of a Matrix Market file or of a wide table are: `"guides_by_cells"` if they are guides, or
#'   `"cells_by_guides"`. If `NULL`, it is inferred from the numbers of names, or for a table from the barcodes and the guide table;
#'   a square matrix, and a table without barcodes, need it.
#' @param features,barcodes The paths of the files that name the features and the cells of a Matrix Market file. If `NULL`, they are
#'   looked for beside it.
#' @param guides The guide table, see [read_guide_table()]. It tells guides from genes where the file does not, and the orientation of
#'   a table. `"union"` takes all guides of several files that do not have the same.
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
#'     `cell_metadata.csv` (Parse), `quants_mat_rows.txt` and `quants_mat_cols.txt` (alevin-fry), or files that are named like the
#'     matrix but for such a word: `cells_x_features.genes.txt` (kallisto), `GSM1_sgRNA_features.tsv`, `GSE_barcodes_guide.tsv`,
#'     `screen.gRNAs.txt` and `screen.cells.txt` (GEO). `features` and `barcodes` name all others. Quotes, blanks, a header and the
#'     numbers of the rows are recognised. Rows may be guides or cells.}
#'   \item{Tables}{CSV or TSV, gzipped or not, also with semicolons. Wide tables have the guides in rows or in columns. Long ones have a
#'     row for each cell and guide, with columns such as `cell_barcode`, `guide_id` and `umi_count`. BD Rhapsody's
#'     `_RSEC_MolsPerCell.csv` and `_Expression_Data.st` are one of each. Empty fields of a wide table are 0.}
#' }
#'   Loom, zarr, h5Seurat, Parquet and R's own files are errors that name the format and a line that converts it.
#'
#' @section What is no guide:
#'   Features that are genes are rejected: where most have Ensembl ids, or where there are a thousand or more with the symbols of genes that
#'   every cell expresses. The guide table (`guides`) finds guides among them. Rows for reads without a guide (`unmapped`,
#'   `unassigned`, `no_match`, `__no_feature`, ...) are left out, with a message.
#'
#' @section Several files:
#'   Each of these is one screen, whose cells are named `sample_barcode`:
#'   \itemize{
#'     \item several paths, with the names of their samples: `c(lane1 = "a.h5", lane2 = "b.h5")`; without names these are taken from
#'       what the paths have of their own;
#'     \item a sample sheet: a data.frame, or the path of a CSV, with the columns `sample` and `path`. Paths in a file start at its
#'       folder. Other columns become columns of the cells;
#'     \item the folder of a run of `cellranger multi`, or a folder of runs of `cellranger count`;
#'     \item a folder with several Matrix Market files, each with names of its own, as GEO has them.
#'   }
#'   If their guides differ, that is an error which names them, unless `guides = "union"` takes all.
#'
#' @section Errors:
#' Every error names the file and has the class `kaichi_error` and one of
#' \describe{
#'   \item{`kaichi_error_argument`}{An argument is not one string, or cannot be used with the format.}
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
read_guides <- function(path, layer = NULL, ..., modality = NULL, feature_type = NULL, orientation = NULL, features = NULL,
                        barcodes = NULL, guides = NULL) {
  check_no_dots("read_guides", ...)
  table <- verb_guide_table(guides)
  read_guide_file(
    path, layer = layer, modality = modality, feature_type = feature_type, orientation = orientation, features = features,
    barcodes = barcodes, guides = table$guide_id, union = takes_union(guides)
  )$counts
}

# Path -> list(counts, batch, guides, samples); `guides` is the guide table that the file has, or NULL; `samples`, for several files, has a
# row for each cell. Rust tells the kind of the file by its content and checks counts and names. `path` may be several paths, named by
# sample, or a data.frame with the columns sample and path; the argument `guides` are the ids of the user's guide table.
read_guide_file <- function(path, layer = NULL, batch = NULL, modality = NULL, feature_type = NULL, orientation = NULL,
                            n_jobs = NULL, features = NULL, barcodes = NULL, guides = NULL, union = FALSE) {
  sheet <- if (is.data.frame(path)) check_sheet(path)
  if (!is.null(sheet)) path <- stats::setNames(sheet$path, sheet$sample)
  check_paths(path)
  if (!is.null(layer)) check_string(layer, "layer", "the name of a layer, or NULL for X")
  if (!is.null(modality)) check_string(modality, "modality", "the name of a modality, or NULL")
  if (!is.null(feature_type)) check_string(feature_type, "feature_type", "the type of the features that are guides, or NULL")
  if (!is.null(orientation)) check_choice(orientation, "orientation", c("guides_by_cells", "cells_by_guides"))
  if (!is.null(features)) check_string(features, "features", "the path of the file that names the features, or NULL")
  if (!is.null(barcodes)) check_string(barcodes, "barcodes", "the path of the file that names the cells, or NULL")
  of_sheet <- !is.null(batch) && batch %in% setdiff(names(sheet), c("sample", "path"))
  options <- list(
    layer = layer, batch = if (!of_sheet) batch, modality = modality, feature_type = feature_type, orientation = orientation,
    features = if (!is.null(features)) path.expand(features), barcodes = if (!is.null(barcodes)) path.expand(barcodes),
    union = if (union) "yes"
  )
  samples <- if (is.null(names(path))) character() else names(path)
  file <- rust_read(path.expand(unname(path)), samples, options, if (is.null(guides)) character() else guides, n_jobs)
  if (length(file$choices) > 0L) say_choice(paste(file$choices, collapse = "\n"))
  dimnames <- list(file$guides, file$cells)
  counts <- sparse_of_rust(file$p, file$i, file$x, lengths(dimnames), dimnames)
  guides <- if (length(file$facts) > 0L) as_data_frame(c(list(guide_id = file$guides), file$facts))
  samples <- if (length(file$columns) > 0L) as_data_frame(file$columns)
  if (!is.null(sheet)) {
    others <- setdiff(names(sheet), c("sample", "path"))
    samples[others] <- sheet[match(samples$sample, sheet$sample), others, drop = FALSE]
  }
  list(counts = counts, batch = if (of_sheet) samples[[batch]] else file$batch, guides = guides, samples = samples)
}

# One path, or several, which may have the names of their samples.
check_paths <- function(path) {
  if (length(path) == 1L && is.null(names(path))) return(check_string(path, "path", "the path of a file or folder"))
  if (!is.character(path) || length(path) == 0L || anyNA(path)) {
    return(check_string(if (is.character(path) && length(path) > 0L) NA_character_ else path, "path", "the path of a file or folder"))
  }
}

is_sheet <- function(x) is.data.frame(x) && "path" %in% names(x)

# A sample sheet: text in the columns sample and path, other columns as they are.
check_sheet <- function(sheet) {
  sheet <- as.data.frame(sheet)
  lost <- setdiff(c("sample", "path"), names(sheet))
  if (length(lost) > 0L) {
    abort(
      "argument", "The sample sheet has no column ", quote_names(lost), ". Its columns: ",
      if (length(sheet) > 0L) quote_names(names(sheet), 10L) else "none", ".\n  Give it one row for each file, with sample and path."
    )
  }
  taken <- intersect(names(sheet), c("cell_barcode", call_column_names, "target"))
  if (length(taken) > 0L) {
    abort("names", "The sample sheet has a column ", quote_names(taken), ", which calls have themselves. Give it another name.")
  }
  sheet[c("sample", "path")] <- lapply(sheet[c("sample", "path")], as.character)
  sheet
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
