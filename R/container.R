# What all containers share: how a guide modality is told from its name, the batch column, and the way the calls go back
# by the names of cells and guides, never by position.

# Feature types of guides, as "CRISPR Guide Capture", and the names under which people keep guides, as "GDO": the rules of the
# readers (core/src/io/features.rs).
is_guide_type <- function(types) rust_is_guide_type(without_na(types))
is_guide_name <- function(names) rust_is_guide_name(without_na(names))
is_gene_modality <- function(names) rust_is_gene_modality(without_na(names))
without_na <- function(x) replace(as.character(x), is.na(x), "")

# One name, as `modality` and `layer` must be.
check_one_name <- function(value, name) {
  if (is.null(value) || (is.character(value) && length(value) == 1L && !is.na(value))) return(invisible())
  abort("argument", "`", name, "` must be one name in quotes, or NULL.")
}

# `batch = "column"`, or covariate, -> the values of that column of the cell metadata; anything else is returned as it is.
column_values <- function(value, argument, metadata, where) {
  column <- batch_column(value)
  if (is.null(column) || (column == "barcode_suffix" && !column %in% names(metadata))) return(value)
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

# The columns of the calls, one row for each of `cells`. A cell that was not scored holds no guide, unless calls of it that were
# attached before are in `metadata`, the columns of the object: those stay. What a sample sheet says never replaces a column of the object.
call_columns <- function(calls, cells, metadata) {
  at <- match(cells, calls$cells$cell_barcode)
  absent <- is.na(at)
  own <- c(call_column_names, "target")
  names <- setdiff(names(calls$cells), c("cell_barcode", setdiff(names(metadata), own)))
  columns <- calls$cells[at, names, drop = FALSE]
  rownames(columns) <- NULL
  columns$is_unassigned[absent] <- TRUE
  columns$is_multi_infected[absent] <- FALSE
  columns$n_guides_detected[absent] <- 0L
  if (!all(call_column_names %in% names(metadata))) return(columns)
  for (name in intersect(own, names(metadata))) {
    before <- metadata[[name]]
    if (is.null(columns[[name]])) {
      # A target that the new calls do not have.
      columns[[name]] <- before
      columns[[name]][!absent] <- NA
    } else {
      columns[[name]][absent] <- as.vector(before)[absent]
    }
  }
  columns
}

# The 0/1 matrix of the calls for these guides and cells. Cells without calls keep those in `before`, NULL or the matrix of calls that
# were attached earlier.
assigned_with <- function(calls, before, guides, cells) {
  assigned <- place_by_name(calls$assigned, guides, cells)
  others <- which(!cells %in% colnames(calls$assigned))
  if (is.null(before) || length(others) == 0L || !identical(dim(before), dim(assigned))) return(assigned)
  before <- as_dgc(before)
  mine <- Matrix::Diagonal(x = as.double(cells %in% colnames(calls$assigned)))
  merged <- assigned + Matrix::drop0(before %*% (Matrix::Diagonal(ncol(before)) - mine))
  dimnames(merged) <- dimnames(assigned)
  Matrix::drop0(methods::as(merged, "dgCMatrix"))
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

# The counts of the guides with those of the calls where `counts` has none for any guide of these cells, as in an experiment that was added
# with the calls of another sample; NULL where nothing is missing.
counts_with <- function(calls, counts, guides, cells) {
  at <- match(colnames(calls$counts), cells)
  if (anyNA(at)) return(NULL)
  if (sum(calls$counts) == 0 || any(Matrix::colSums(as_dgc(counts[, at, drop = FALSE])) > 0)) return(NULL)
  counts <- as_dgc(counts)
  dimnames(counts) <- list(guides, cells)
  merged <- counts + place_by_name(calls$counts, guides, cells)
  methods::as(merged, "dgCMatrix")
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
