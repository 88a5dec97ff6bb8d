# GET, one of the two generics every container implements, with its matrix and path methods. PUT is attach_calls().
#
# guide_counts() returns a plain list, the only thing the verbs know of a container:
#   counts    dgCMatrix, guides x cells, whole numbers > 0 stored (no explicit zeros), unique non-empty dimnames
#   batch     NULL, or a factor with one level per batch and one value per cell, no NA
#   covariate NULL, or one positive number per cell
#   modality  NULL, or the name of the altExp / assay the counts came from
#   guides    absent, or a guide table, one row per guide in the order of the counts, with what the input says of them
#   samples   absent, or for several files a data.frame, one row per cell, with its sample and what the sample sheet says of that

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

# `choices` are those that only files have, see file_choices(); `table` is the guide table of the user, or NULL.
file_counts <- function(x, batch, covariate, modality, layer, n_jobs, choices = list(), table = NULL) {
  column <- batch_column(batch)
  file <- do.call(read_guide_file, c(
    list(x, layer = layer, batch = column, modality = modality, n_jobs = n_jobs, guides = table$guide_id), choices
  ))
  if (!is.null(column)) batch <- file$batch
  # `modality` is of use where the counts go back into a container, which a file is not.
  checked_counts(file$counts, batch, covariate, NULL, file$guides, file$samples)
}

# The arguments of the verbs that are for files only.
file_choices <- function(feature_type, orientation, features, barcodes, guides = NULL) {
  given <- list(feature_type = feature_type, orientation = orientation, features = features, barcodes = barcodes)
  c(given[!vapply(given, is.null, NA)], if (takes_union(guides)) list(union = TRUE))
}

takes_union <- function(guides) identical(guides, "union")

# What score_guides() and assign_guides() fit: list(counts, file), with the guide table of the user carried to the counts; `file` is
# for workers, see shard_file().
verb_input <- function(x, info, batch, covariate, modality, layer, guides, feature_type, orientation, features, barcodes, n_jobs) {
  table <- verb_guide_table(guides)
  choices <- file_choices(feature_type, orientation, features, barcodes, guides)
  counts <- verb_counts(x, list(info), batch, covariate, modality, layer, n_jobs, choices, table)
  list(counts = with_guide_table(counts, table), file = shard_file(x, layer, modality, choices, table))
}

# guide_counts() for a verb that fits the models of `infos`, with the choices that only files have.
verb_counts <- function(x, infos, batch, covariate, modality, layer, n_jobs, choices, table = NULL) {
  counts <- chosen_counts(x, if (!isFALSE(batch)) batch, covariate, modality, layer, n_jobs, choices, table)
  with_sample_batch(counts, batch, infos)
}

chosen_counts <- function(x, batch, covariate, modality, layer, n_jobs, choices, table) {
  if ((is.character(x) && is.null(dim(x))) || is_sheet(x)) {
    return(file_counts(x, batch, covariate, modality, layer, n_jobs, choices, table))
  }
  of_table <- if (is.data.frame(x)) "orientation"
  given <- setdiff(names(choices), of_table)
  if ("union" %in% given) {
    abort("argument", "`guides` is \"union\", which is for the paths of several files, but `x` is of class ", quote_names(class(x)), ".")
  }
  if (length(given) > 0L) {
    abort(
      "argument", "`", given[1L], "` is for the path of a file, but `x` is of class ", quote_names(class(x)), ". Leave it out."
    )
  }
  if (is.data.frame(x)) x <- table_counts(x, choices$orientation, table$guide_id)
  guide_counts(x, batch = batch, covariate = covariate, modality = modality, layer = layer, n_jobs = n_jobs)
}

# Where the model has batches and the user says nothing, the samples of several files are the batches.
with_sample_batch <- function(counts, batch, infos) {
  if (!is.null(batch) || is.null(counts$samples) || length(unique(counts$samples$sample)) < 2L) return(counts)
  if (!any(vapply(infos, `[[`, NA, "uses_batch"))) return(counts)
  say_choice("Taking the sample as `batch`. Give `batch` to choose otherwise, FALSE for none.")
  counts$batch <- check_batch(counts$samples$sample, colnames(counts$counts))
  counts
}

# A data.frame of counts, long or wide, as a guides x cells matrix; `guides` are the ids of the guide table, or NULL.
table_counts <- function(x, orientation = NULL, guides = NULL) {
  x <- as.data.frame(x)
  if (!is.null(orientation)) check_choice(orientation, "orientation", c("guides_by_cells", "cells_by_guides"))
  long <- rust_long_columns(names(x))
  if (length(long) == 3L) return(long_counts(x, names(x)[long]))
  is_text <- vapply(x, function(column) is.character(column) || is.factor(column), NA)
  if (sum(is_text) > 1L) {
    abort(
      "counts", "`x` has several columns of text, ", quote_names(names(x)[is_text]), ", where one may name its rows.\n",
      "  A long table has columns such as cell_barcode, guide_id and umi_count."
    )
  }
  rows <- if (any(is_text)) as.character(x[[which(is_text)]]) else rownames(x)
  if (!any(is_text) && .row_names_info(x) < 0L) {
    abort("names", "`x` has no row names and no column that names its rows. Give it one.")
  }
  corner <- if (any(is_text)) names(x)[is_text] else ""
  counts <- as.matrix(x[!is_text])
  rownames(counts) <- rows
  if (is.null(orientation)) orientation <- rust_orient(rows, colnames(counts), corner, if (is.null(guides)) character() else guides)
  if (orientation == "") {
    abort(
      "format", "`x` has ", nrow(counts), " rows (", quote_names(rows, 2L), ") and ", ncol(counts), " columns (",
      quote_names(colnames(counts), 2L), "), either of which may be the guides.\n  Say which: `orientation = \"guides_by_cells\"`, ",
      "where rows are guides, or \"cells_by_guides\"; or give the guide table as `guides`."
    )
  }
  if (orientation == "cells_by_guides") t(counts) else counts
}

# `columns` are those of cells, guides and counts.
long_counts <- function(x, columns) {
  cell <- as.character(x[[columns[1L]]])
  guide <- as.character(x[[columns[2L]]])
  umi <- x[[columns[3L]]]
  if (!is.numeric(umi)) abort("counts", "The column ", quote_names(columns[3L]), " of `x` must hold numbers, not ", describe_class(umi), ".")
  if (length(unique(x$sample)) > 1L) cell <- paste(x$sample, cell, sep = "_")
  say_choice(
    "Reading `x` as a long table: cells of ", quote_names(columns[1L]), ", guides of ", quote_names(columns[2L]), ", counts of ",
    quote_names(columns[3L]), "."
  )
  named <- !is.na(guide) & guide != ""
  cells <- unique(cell)
  guides <- unique(guide[named])
  i <- match(guide[named], guides)
  j <- match(cell[named], cells)
  twice <- anyDuplicated((j - 1) * length(guides) + i)
  if (twice > 0L) {
    abort(
      "format", "The guide ", quote_names(guides[i[twice]]), " stands more than once in cell ", quote_names(cells[j[twice]]),
      " of `x`. Give each pair one row."
    )
  }
  Matrix::sparseMatrix(
    i = i, j = j, x = as.double(umi[named]), dims = c(length(guides), length(cells)), dimnames = list(guides, cells)
  )
}

checked_counts <- function(counts, batch, covariate, modality, guides = NULL, samples = NULL) {
  cells <- colnames(counts)
  c(
    list(
      counts = counts, batch = check_batch(batch, cells), covariate = check_covariate(covariate, cells), modality = modality
    ),
    if (!is.null(guides)) list(guides = guides),
    if (!is.null(samples)) list(samples = samples)
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

# The number at the end of each barcode, by which cellranger aggr tells the libraries.
barcode_suffixes <- function(cells) {
  without <- which(!grepl("-[0-9]+$", cells))
  if (length(without) > 0L) {
    abort(
      "batch", "The cell ", quote_names(cells[without[1L]]), " has no number at its end, as cellranger aggr writes it (AAAC-2).\n",
      "  Give the batch of each cell itself."
    )
  }
  sub(".*-", "", cells)
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

# Any matrix-like object -> the dgCMatrix described at the head of this file. `modality` is for messages: where it comes from.
check_counts <- function(x, modality = NULL) {
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
  refuse_transposed(x)
  x <- guides_only(x, modality)
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

# Rows that are named by barcodes are cells.
refuse_transposed <- function(x) {
  if (nrow(x) < 2L || !rust_are_barcodes(rownames(x)) || rust_are_barcodes(colnames(x))) return(invisible())
  abort(
    "names", "The rows of `x` are named by barcodes, such as ", quote_names(rownames(x), 1L), ", and its columns ",
    quote_names(colnames(x), 2L), ": it is cells x guides.\n  Rows are guides and columns are cells: give t(x)."
  )
}

# Genes are refused as in the readers, and rows for reads without a guide are left out.
guides_only <- function(x, modality) {
  told <- rust_features(rownames(x))
  if (nzchar(told$genes)) {
    where <- if (is.null(modality)) "`x`" else paste0("The experiment or assay ", quote_names(modality))
    abort(
      if (is.null(modality)) "names" else "modality", where, " holds genes, not guides: ", told$genes, ".\n  Give the counts of the guides."
    )
  }
  if (length(told$leftovers) == 0L) return(x)
  left <- rownames(x)[told$leftovers]
  say_choice("Leaving out ", quote_names(left), ": ", if (length(left) == 1L) "it is" else "they are", " no guide.")
  if (length(left) == nrow(x)) abort("counts", "`x` has no guides but rows for reads without one.")
  x[-told$leftovers, , drop = FALSE]
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
  if (identical(batch, "barcode_suffix")) batch <- barcode_suffixes(cells)
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
  # In the order of their bytes, as the readers have them: that of the locale would change the fits.
  if (is.character(batch)) batch <- factor(batch, sort(unique(batch), method = "radix"))
  batch <- droplevels(as.factor(batch))
  names(batch) <- NULL
  batch
}
