#' Guide calls as objects of other packages
#'
#' A SingleCellExperiment or Seurat object of the guides, or the input of sceptre, from calls made of a file or a matrix.
#'
#' @inheritParams cell_columns
#' @param scores The `guide_scores` of [score_guides()] that the calls were decided from, for the assay `posterior`. NULL:
#'   without it.
#' @param assay The name of the Seurat assay.
#' @param guides The guide table: a data.frame with `guide_id` and, for sceptre and the columns of Mixscape, `target`; see
#'   [cell_columns()]. NULL is the table that `calls` carries as `calls$guides`, if it has one.
#'
#' @return
#'   \describe{
#'     \item{`as_sce()`}{A SingleCellExperiment with the guides as the main experiment, named `guides`. Assays `counts`,
#'       `assigned` (0/1), and with `scores` `posterior`, the score of every count; `colData` is `calls$cells`; `rowData` the guide
#'       table and the fits of the guides; `metadata()$kaichi` as in Containers of [assign_guides()].}
#'     \item{`as_seurat()`}{A Seurat object with the guide counts as its only assay and the calls as in Containers of
#'       [assign_guides()]; with targets, the columns of Mixscape (see [cell_columns()]) are in `meta.data` too. Seurat turns
#'       `_` and `|` in the names of guides into `-`; [guide_names()] gives the guides' own names, which the columns have as
#'       well. Two guides that get one name are an error.}
#'     \item{`as_sceptre()`}{A list for sceptre's `import_data()` with `assign_grnas(method = "thresholding", threshold = 1)`:
#'       `grna_matrix`, dgCMatrix, guides x cells, 1 where called; `grna_target_data_frame`, `grna_id` chr and `grna_target` chr,
#'       `"non-targeting"` for controls, and `chr`, `start`, `end`, `vector_id` where the guide table has them.}
#'   }
#' @section Errors:
#'   `kaichi_error_argument`, `kaichi_error_names` as in [cell_columns()]; `kaichi_error_package` for a package that is not
#'   installed.
#' @seealso [attach_calls()] puts calls into an object with the expression of the cells.
#' @examples
#' sim <- simulate_guides("easy", n_cells = 300, n_guides = 10)
#' scores <- score_guides(sim$counts)
#' calls <- decide_guides(scores)
#' guides <- data.frame(guide_id = sim$guides$guide_id)
#' guides$target <- rep(c("GATA1", "non-targeting"), each = 5)
#' str(as_sceptre(calls, guides = guides)$grna_target_data_frame)
#' if (requireNamespace("SingleCellExperiment", quietly = TRUE)) {
#'   as_sce(calls, scores = scores, guides = guides)
#' }
#' if (requireNamespace("SeuratObject", quietly = TRUE)) as_seurat(calls, guides = guides)
#' @name as_sce
NULL

#' @rdname as_sce
#' @export
as_sce <- function(calls, ..., scores = NULL, guides = NULL) {
  check_no_dots("as_sce", ...)
  check_calls(calls)
  need_package("SingleCellExperiment", "for a SingleCellExperiment", "Bioconductor")
  assays <- list(counts = calls$counts, assigned = calls$assigned)
  if (!is.null(scores)) assays$posterior <- scores_of(scores, calls)
  table <- guide_rows(calls, guides)
  features <- if (is.null(table)) data.frame(guide_id = rownames(calls$counts), stringsAsFactors = FALSE) else table
  if ("guide_id" %in% names(calls$fits)) {
    fits <- calls$fits[match(features$guide_id, calls$fits$guide_id), setdiff(names(calls$fits), names(features)), drop = FALSE]
    features <- cbind(features, fits)
  }
  SingleCellExperiment::SingleCellExperiment(
    assays,
    colData = S4Vectors::DataFrame(
      calls$cells[setdiff(names(calls$cells), "cell_barcode")], row.names = calls$cells$cell_barcode, check.names = FALSE
    ),
    rowData = S4Vectors::DataFrame(features, row.names = rownames(calls$counts), check.names = FALSE),
    metadata = list(kaichi = call_provenance(calls)), mainExpName = "guides"
  )
}

scores_of <- function(scores, calls) {
  if (!inherits(scores, "guide_scores")) {
    abort("argument", "`scores` must be the result of score_guides(), or NULL, not ", describe_class(scores), ".")
  }
  if (!identical(dimnames(scores$counts), dimnames(calls$counts)) || !identical(scores$counts@p, calls$counts@p)) {
    abort("argument", "`scores` and `calls` are not of the same counts. Give the scores that the calls were decided from.")
  }
  scores$posterior
}

#' @rdname as_sce
#' @export
as_seurat <- function(calls, assay = "GDO", ..., guides = NULL, control = NULL) {
  check_no_dots("as_seurat", ...)
  check_calls(calls)
  check_string(assay, "assay", "the name of the assay")
  need_package("SeuratObject", "for a Seurat object")
  features <- dashed_names(rownames(calls$counts))
  # Two guides of one name are an error.
  seurat_names(rownames(calls$counts), features)
  counts <- calls$counts
  rownames(counts) <- features
  # Seurat 5's own kind of assay cannot be made of one row.
  if (nrow(counts) == 1L && utils::packageVersion("SeuratObject") >= "5") counts <- SeuratObject::CreateAssayObject(counts)
  x <- SeuratObject::CreateSeuratObject(counts, project = "guides", assay = assay)
  x <- attach_calls(x, calls, modality = assay, join = "left")
  table <- guide_rows(calls, guides)
  if ("target" %in% names(table)) {
    columns <- cell_columns(calls, "mixscape", guides = table, control = control)
    x@meta.data[names(columns)] <- columns
  } else if (!is.null(control)) {
    abort("argument", "`control` means nothing without targets: give `guides` with the column target, or leave it out.")
  }
  x
}

#' @rdname as_sce
#' @export
as_sceptre <- function(calls, ..., guides = NULL, control = NULL) {
  check_no_dots("as_sceptre", ...)
  check_calls(calls)
  facts <- guide_facts(calls, guides, control, "sceptre")
  frame <- data.frame(
    grna_id = rownames(calls$counts), grna_target = ifelse(facts$control, "non-targeting", facts$target), stringsAsFactors = FALSE
  )
  for (name in intersect(c("chr", "start", "end", "vector_id"), names(facts$table))) frame[[name]] <- facts$table[[name]]
  list(grna_matrix = calls$assigned, grna_target_data_frame = frame)
}
