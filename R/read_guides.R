#' Read guide counts from a file
#'
#' Reads the guide counts of an `.h5ad` file, as written by anndata 0.7 and later, without Python. [assign_guides()] and
#' [score_guides()] take the path of such a file themselves; `read_guides()` is for looking at the counts first.
#'
#' `X`, or the layer asked for, may be a sparse matrix (`csr_matrix`, `csc_matrix`) or a dense array, of any integer or
#' floating-point type, uncompressed or compressed with gzip or lzf, or with any other filter that the HDF5 library in
#' use can read. A file is told by its content, whatever its name. Files that lead to other files (external links, external storage,
#' virtual datasets) are refused, as are sizes that nothing in the file stands for.
#'
#' @param path Path of the file: one string. `~` is expanded.
#' @param layer Name of the layer that holds the raw UMI counts, or `NULL` for `X`.
#'
#' @return A sparse matrix (`dgCMatrix`) of UMI counts, guides in rows and cells in columns, with the names of `var` and
#'   `obs`. Counts are whole numbers; zeros are not stored.
#'
#' @section Errors:
#' Every error names the file and has the class `kaichi_error` and one of
#' \describe{
#'   \item{`kaichi_error_argument`}{`path` or `layer` is not one string.}
#'   \item{`kaichi_error_file`}{The file is missing, a folder, of another kind, or has changed while it was read.}
#'   \item{`kaichi_error_format`}{There is no such layer, the encoding or the compression is not supported, or the file is
#'     damaged.}
#'   \item{`kaichi_error_counts`}{A value is not a whole number from 0 to 2147483647, as in normalised data, or there are
#'     no cells or no guides.}
#'   \item{`kaichi_error_names`}{A cell or guide has no name, or shares it with another.}
#' }
#'
#' @examples
#' counts <- read_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' dim(counts)
#' counts[1:3, 1:5]
#' @export
read_guides <- function(path, layer = NULL) {
  read_guide_file(path, layer = layer)$counts
}

# Path -> list(counts, batch). Rust tells the kind of the file by its content and checks counts and names.
read_guide_file <- function(path, layer = NULL, batch = NULL, n_jobs = NULL) {
  check_string(path, "path", "the path of an .h5ad file")
  if (!is.null(layer)) check_string(layer, "layer", "the name of a layer, or NULL for X")
  file <- rust_read_h5ad(path.expand(path), layer, batch, n_jobs)
  counts <- methods::new(
    "dgCMatrix",
    i = file$i, p = file$p, x = file$x, Dim = c(length(file$guides), length(file$cells)),
    Dimnames = list(file$guides, file$cells)
  )
  list(counts = counts, batch = file$batch)
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
