# GET, one of the two generics every container implements, with its matrix and path methods. PUT is attach_calls().
#
# guide_counts() returns a plain list, the only thing the verbs know of a container:
#   counts    dgCMatrix, guides x cells, whole numbers > 0 stored (no explicit zeros), unique non-empty dimnames
#   batch     NULL, or a factor with one level per batch and one value per cell, no NA
#   covariate NULL, or one positive number per cell
#   modality  NULL, or the name of the altExp / assay the counts came from
#   guides    absent, or a guide table, one row per guide in the order of the counts, with what the input says of them

#' @keywords internal
guide_counts <- function(x, batch = NULL, covariate = NULL, modality = NULL, layer = NULL, n_jobs = NULL) UseMethod("guide_counts")

#' @export
guide_counts.default <- function(x, batch = NULL, covariate = NULL, modality = NULL, layer = NULL, n_jobs = NULL) {
  if (inherits(x, "Matrix") || inherits(x, "DelayedMatrix")) {
    return(guide_counts.matrix(x, batch, covariate, modality, layer))
  }
  abort(
    "argument", "`x` is of class ", quote_names(class(x)), ", which holds no guide counts that kaichi knows.\n",
    "  Give the path of a file, a guides x cells matrix, a SingleCellExperiment or a Seurat object."
  )
}

#' @export
guide_counts.matrix <- function(x, batch = NULL, covariate = NULL, modality = NULL, layer = NULL, n_jobs = NULL) {
  no_container_argument(modality, "modality", "a matrix")
  no_container_argument(layer, "layer", "a matrix")
  counts <- check_counts(x)
  checked_counts(counts, batch, covariate, NULL)
}

#' @export
guide_counts.character <- function(x, batch = NULL, covariate = NULL, modality = NULL, layer = NULL, n_jobs = NULL) {
  file_counts(x, batch, covariate, modality, layer, n_jobs)
}

file_counts <- function(x, batch, covariate, modality, layer, n_jobs, feature_type = NULL, orientation = NULL) {
  column <- batch_column(batch)
  file <- read_guide_file(x, layer, column, modality, feature_type, orientation, n_jobs)
  if (!is.null(column)) batch <- file$batch
  # `modality` is of use where the counts go back into a container, which a file is not.
  checked_counts(file$counts, batch, covariate, NULL, file$guides)
}

# guide_counts() for a verb, with the choices that only files have.
verb_counts <- function(x, batch, covariate, modality, layer, n_jobs, feature_type, orientation) {
  if (is.character(x) && is.null(dim(x))) {
    return(file_counts(x, batch, covariate, modality, layer, n_jobs, feature_type, orientation))
  }
  given <- c("feature_type", "orientation")[c(!is.null(feature_type), !is.null(orientation))]
  if (length(given) > 0L) {
    abort(
      "argument", "`", given[1L], "` is for the path of a file, but `x` is of class ", quote_names(class(x)), ". Leave it out."
    )
  }
  guide_counts(x, batch = batch, covariate = covariate, modality = modality, layer = layer, n_jobs = n_jobs)
}

checked_counts <- function(counts, batch, covariate, modality, guides = NULL) {
  cells <- colnames(counts)
  c(
    list(
      counts = counts, batch = check_batch(batch, cells), covariate = check_covariate(covariate, cells), modality = modality
    ),
    if (!is.null(guides)) list(guides = guides)
  )
}

no_container_argument <- function(value, name, what) {
  if (!is.null(value)) {
    abort("argument", "`", name, "` means nothing for ", what, ": leave it out, or give a container that has one.")
  }
}

# `batch = "column"` names a column of the file's obs or the container's cell metadata; anything longer is the batch itself.
batch_column <- function(batch) {
  if (is.character(batch) && length(batch) == 1L && !is.na(batch)) batch else NULL
}

# A covariate for every cell -> its numbers in the order of the cells.
check_covariate <- function(covariate, cells) {
  if (is.null(covariate)) return(NULL)
  if (is.character(covariate) && length(covariate) == 1L) {
    abort(
      "argument", "`covariate` is ", quote_names(covariate), ", but `x` has no cell metadata to look it up in.\n",
      "  Give the numbers themselves, one per cell."
    )
  }
  if (!is.numeric(covariate)) {
    abort(
      "argument", "`covariate` is of class ", quote_names(class(covariate)),
      ". Give one number per cell, or the name of a column."
    )
  }
  if (is.null(names(covariate))) {
    if (length(covariate) != length(cells)) {
      abort(
        "argument", "`covariate` has ", length(covariate), " values for ", length(cells),
        " cells. Give one number per cell, or name the numbers by cell."
      )
    }
  } else {
    at <- match(cells, names(covariate))
    lost <- which(is.na(at))
    if (length(lost) > 0L) {
      abort(
        "argument", "`covariate` has names, but none for cell ", quote_names(cells[lost[1L]]), " (", length(lost),
        " such cells).\n  Name it by cell, or take the names off with unname() if it is in the order of the cells."
      )
    }
    covariate <- covariate[at]
  }
  bad <- which(!is.finite(covariate) | covariate <= 0)
  if (length(bad) > 0L) {
    abort(
      "argument", "`covariate` is ", format(unname(covariate[bad[1L]])), " for cell ", quote_names(cells[bad[1L]]), " (",
      length(bad), " such cells); it must be a number above 0.\n  Drop cells without RNA first."
    )
  }
  as.double(covariate)
}

# Any matrix-like object -> the dgCMatrix described at the head of this file.
check_counts <- function(x) {
  if (!inherits(x, "dgCMatrix")) {
    if (is.matrix(x) && !is.numeric(x) && !is.logical(x)) {
      abort("counts", "`x` is a ", typeof(x), " matrix; guide counts are whole numbers.")
    }
    if (!is.matrix(x) && !inherits(x, "Matrix") && !inherits(x, "DelayedMatrix")) {
      abort(
        "counts", "The counts are of class ", quote_names(class(x)), "; they must be a matrix, sparse or dense, or a DelayedMatrix.\n",
        "  Make them one, for example with as.matrix()."
      )
    }
    x <- as_dgc(x)
  }
  if (nrow(x) == 0L) abort("counts", "`x` has no guides (0 rows). Rows are guides and columns are cells.")
  if (ncol(x) == 0L) abort("counts", "`x` has no cells (0 columns). Rows are guides and columns are cells.")
  check_names(rownames(x), nrow(x), "guide", "row")
  check_names(colnames(x), ncol(x), "cell", "column")
  bad <- rust_first_bad_count(x@x)
  if (bad$position > 0L) {
    # findInterval counts the starts at or before the entry; of empty cells that share a start it takes the last.
    cell <- findInterval(bad$position - 1L, x@p)
    guide <- x@i[bad$position] + 1L
    abort(
      "counts", "The count of guide \"", rownames(x)[guide], "\" in cell \"", colnames(x)[cell], "\" is ",
      format(x@x[bad$position], digits = 15), ", which is ", bad$reason, ".\n  kaichi needs raw UMI counts: whole numbers from 0 to 2147483647. ",
      "If these are normalised values, give the raw counts (another assay or `layer =`)."
    )
  }
  if (bad$zeros) x <- Matrix::drop0(x)
  sort_rows(x)
}

as_dgc <- function(x) {
  if (inherits(x, "DelayedMatrix")) need_package("DelayedArray", "to read a DelayedMatrix", "Bioconductor")
  # A DelayedMatrix and the classes of Matrix each bring their own way to a general, numeric, column-compressed matrix.
  x <- if (is.matrix(x)) {
    storage.mode(x) <- "double"
    methods::as(methods::as(x, "CsparseMatrix"), "generalMatrix")
  } else if (inherits(x, "DelayedMatrix")) {
    methods::as(x, "dgCMatrix")
  } else {
    methods::as(methods::as(methods::as(x, "CsparseMatrix"), "generalMatrix"), "dMatrix")
  }
  x
}

# A dgCMatrix may hold unsorted rows when it was built by hand; Matrix sorts by transposing twice.
sort_rows <- function(x) {
  if (methods::validObject(x, test = TRUE) == TRUE) return(x)
  Matrix::t(Matrix::t(x))
}

check_names <- function(names, n, what, side) {
  if (is.null(names)) {
    abort(
      "names", "`x` has no ", side, " names; they name the ", what, "s. Set ", if (side == "row") "rownames(x)." else "colnames(x)."
    )
  }
  empty <- which(is.na(names) | names == "")
  if (length(empty) > 0L) {
    abort("names", "The ", what, " name in ", side, " ", empty[1L], " is empty. Every ", what, " needs a name.")
  }
  twice <- anyDuplicated(names)
  if (twice > 0L) {
    abort(
      "names", "The ", what, " name ", quote_names(names[twice]), " stands more than once (", side, "s ",
      match(names[twice], names), " and ", twice, "). Make ", what, " names unique, for example with make.unique()."
    )
  }
}

# A batch for every cell -> a factor without unused levels.
check_batch <- function(batch, cells) {
  if (is.null(batch)) return(NULL)
  if (!(is.factor(batch) || is.character(batch) || is.numeric(batch) || is.logical(batch))) {
    abort("batch", "`batch` is of class ", quote_names(class(batch)), ". Give a vector with one value per cell, or the name of a column.")
  }
  if (length(batch) != length(cells)) {
    abort("batch", "`batch` has ", length(batch), " values for ", length(cells), " cells. Give one value per cell, or the name of a column.")
  }
  missing <- which(is.na(batch))
  if (length(missing) > 0L) {
    abort("batch", "`batch` is NA for cell ", quote_names(cells[missing[1L]]), " (", length(missing), " such cells). Give every cell a batch.")
  }
  batch <- droplevels(as.factor(batch))
  names(batch) <- NULL
  batch
}
