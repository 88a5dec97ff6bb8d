# What all containers share: how a guide modality is told from its name, the batch column, and the way the calls go back
# by the names of cells and guides, never by position.

# Feature types of guides, as "CRISPR Guide Capture", and the names under which people keep guides, as "GDO": the rules of the
# readers (core/src/io/features.rs).
is_guide_type <- function(types) rust_is_guide_type(without_na(types))
is_guide_name <- function(names) rust_is_guide_name(without_na(names))
without_na <- function(x) replace(as.character(x), is.na(x), "")

# One name, as `modality` and `layer` must be.
check_one_name <- function(value, name) {
  if (is.null(value) || (is.character(value) && length(value) == 1L && !is.na(value))) return(invisible())
  abort("argument", "`", name, "` must be one name in quotes, or NULL.")
}

# `batch = "column"`, or covariate, -> the values of that column of the cell metadata; anything else is returned as it is.
column_values <- function(value, argument, metadata, where) {
  column <- batch_column(value)
  if (is.null(column)) return(value)
  if (!column %in% names(metadata)) {
    abort(
      if (argument == "batch") "batch" else "argument", "`", argument, "` names the column ", quote_names(column), ", which ", where, " does not have.\n",
      if (ncol(metadata) == 0L) "  It has no columns." else paste0("  Its columns: ", quote_names(names(metadata), 20L), ".")
    )
  }
  values <- metadata[[column]]
  # Run-length encoded columns (Rle) are common in colData.
  if (isS4(values)) as.vector(values) else values
}

# The columns of the calls, one row for each of `cells`. A cell that was not scored holds no guide.
call_columns <- function(calls, cells) {
  at <- match(cells, calls$cells$cell_barcode)
  absent <- is.na(at)
  columns <- calls$cells[at, setdiff(names(calls$cells), "cell_barcode"), drop = FALSE]
  rownames(columns) <- NULL
  columns$is_unassigned[absent] <- TRUE
  columns$is_multi_infected[absent] <- FALSE
  columns$n_guides_detected[absent] <- 0L
  columns
}

# A sparse matrix laid out anew for these guides and cells, zero where it has no value; entries of other cells are left out.
place_by_name <- function(matrix, guides, cells) {
  if (identical(rownames(matrix), guides) && identical(colnames(matrix), cells)) return(matrix)
  row <- match(rownames(matrix), guides)
  lost <- which(is.na(row))
  if (length(lost) > 0L) {
    abort(
      "names", "The guide ", quote_names(rownames(matrix)[lost[1L]]), " of the calls is not in `x` (", length(lost),
      " such guides).\n  Calls are matched by guide name: give the object that they were made from."
    )
  }
  column <- match(colnames(matrix), cells)
  i <- row[matrix@i + 1L]
  j <- column[rep(seq_len(ncol(matrix)), diff(matrix@p))]
  keep <- !is.na(j)
  Matrix::sparseMatrix(
    i = i[keep], j = j[keep], x = matrix@x[keep], dims = c(length(guides), length(cells)), dimnames = list(guides, cells)
  )
}

# The columns of the guide table of the calls for these guides, NA where it has no row; an empty list without a table.
guide_columns <- function(calls, guides) {
  table <- calls$guides
  columns <- as.list(table[match(guides, table$guide_id), setdiff(names(table), "guide_id"), drop = FALSE])
  columns[!vapply(columns, is.list, NA)]
}

# How the calls were made, kept beside them in the container.
call_provenance <- function(calls) {
  calls[intersect(c("model", "params", "version", "fits", "screen", "guides"), names(calls))]
}
