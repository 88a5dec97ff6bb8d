#' Attach guide calls to an object
#'
#' Joins calls, as of a file of guide counts, to the object with the expression of the same cells, by barcode.
#'
#' @param x A SingleCellExperiment, a SummarizedExperiment or a Seurat object.
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()].
#' @param modality The altExp (or `mainExpName`) or assay of `x` that holds the guides. NULL: the one that has all guides of
#'   the calls; without one, the altExp `guides` or the assay `GDO` is added, with counts and calls.
#' @param join `"inner"` keeps the cells that are in both. `"left"` keeps all cells of `x`: those without calls get NA as guide,
#'   `is_unassigned` TRUE and 0 guides, and zeros in an experiment or assay that is added.
#' @param cells NULL: cells are matched as below. Or a function that makes the names of the calls' cells those of `x`, as
#'   `function(cell) paste0("S1_", cell)`.
#'
#' @return `x` with the calls, see Containers of [assign_guides()]: columns of the cells, the 0/1 matrix `assigned`, and model,
#'   params, version, fits, screen and the guides' own names. A SummarizedExperiment without the guides gets the columns only.
#'   For a path or a matrix, which has no place for calls, `calls`.
#' @section How cells are matched:
#'   The first of these that finds any cell: names as they are; names without a `-1` at the end; the nucleotides of the barcode
#'   with the number that follows (`AAAC-2` in `S1_AAAC-2` and `AAAC-2_1`); the nucleotides alone. It must be one-to-one: two
#'   cells of one side that could be the same cell of the other are an error, and so are two samples, by what is before and
#'   after the nucleotides, that would be one sample of the other: name the cells alike with `cells` then. How many cells were matched, and how, is said in a message of the class
#'   `kaichi_message_choice`, unless all cells have the same names on both sides.
#' @section Errors:
#'   `kaichi_error_names` for cells none of which match or that match two, and for guides that are not in `modality`;
#'   `kaichi_error_modality` for a `modality` that `x` does not have, and where several could hold the guides.
#' @seealso [attached_calls()] takes the calls out again; [guide_names()].
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"), model = "umi")
#' if (requireNamespace("SingleCellExperiment", quietly = TRUE)) {
#'   barcodes <- calls$cells$cell_barcode[1:50]
#'   rna <- matrix(rpois(500, 2), 10, dimnames = list(paste0("gene", 1:10), barcodes))
#'   sce <- SingleCellExperiment::SingleCellExperiment(list(counts = rna))
#'   sce <- attach_calls(sce, calls)
#'   table(sce$guide_id)
#' }
#' @export
attach_calls <- function(x, calls, modality = NULL, join = c("inner", "left"), cells = NULL) UseMethod("attach_calls")

#' @export
attach_calls.default <- function(x, calls, modality = NULL, join = c("inner", "left"), cells = NULL) {
  if (is.character(x) || is.matrix(x) || inherits(x, "Matrix") || inherits(x, "DelayedMatrix")) return(calls)
  abort(
    "argument", "`x` is of class ", quote_names(class(x)), ", which has no place for calls that kaichi knows.\n",
    "  Give a SingleCellExperiment, a SummarizedExperiment or a Seurat object."
  )
}

# list(x, calls) with the cells of the join, the calls' cells named as in `x`.
join_cells <- function(x, calls, join, cells) {
  check_calls(calls)
  if (identical(join, c("inner", "left"))) join <- "inner"
  join <- check_choice(join, "join", c("inner", "left"))
  theirs <- colnames(x)
  ours <- calls$cells$cell_barcode
  if (identical(ours, theirs) && is.null(cells)) return(list(x = x, calls = calls))
  check_names(theirs, ncol(x), "cell", "column")
  matched <- match_cells(renamed_cells(ours, cells), theirs)
  found <- which(!is.na(matched$at))
  at <- matched$at[found]
  if (length(found) < length(ours) || length(at) < length(theirs) || matched$how != "") {
    say_choice(
      "Calls for ", big(length(at)), " of the ", count_of(length(theirs), "cell"), " of `x` (", big(length(ours)),
      " in the calls)", matched$how,
      if (join == "inner" && length(at) < length(theirs)) "; the others are dropped (join = \"inner\")", "."
    )
  }
  if (join == "inner" && length(at) < length(theirs)) x <- x[, sort(at)]
  list(x = x, calls = take_cells(calls, found, theirs[at]))
}

renamed_cells <- function(cells, rename) {
  if (is.null(rename)) return(cells)
  if (!is.function(rename)) {
    abort("argument", "`cells` must be a function of the names of the calls' cells, or NULL, not ", describe(rename), ".")
  }
  renamed <- rename(cells)
  if (!is.character(renamed) || length(renamed) != length(cells) || anyNA(renamed) || anyDuplicated(renamed) > 0L) {
    abort("names", "The function `cells` must return one unique name for each of the ", count_of(length(cells), "cell"), ".")
  }
  renamed
}

# Where each of `ours` is in `theirs`, and in words how it was found. `here`, `there` and `same` are for messages.
match_cells <- function(ours, theirs, here = "the calls", there = "`x`", same = "the object with the same cells") {
  for (rule in cell_rules) {
    us <- rule$key(ours)
    them <- rule$key(theirs)
    at <- match(us, them, incomparables = NA)
    if (all(is.na(at))) next
    refuse_ambiguous(ours, us, them, here, there, rule)
    refuse_ambiguous(theirs, them, us, there, here, rule)
    found <- which(!is.na(at))
    if (!is.null(rule$says)) {
      refuse_two_samples(ours[found], theirs[at[found]], here, there)
      refuse_two_samples(theirs[at[found]], ours[found], there, here)
    }
    how <- if (!is.null(rule$says)) {
      paste0(", matched ", rule$says, " (", quote_names(ours[found[1L]]), " is ", quote_names(theirs[at[found[1L]]]), ")")
    } else {
      ""
    }
    return(list(at = at, how = how))
  }
  abort(
    "names", "None of the cells of ", here, " (", quote_names(ours, 3L), ") is in ", there, " (", quote_names(theirs, 3L), ").\n",
    "  Calls are matched by cell name: give ", same, ", or make the names alike with `cells`."
  )
}

cell_rules <- list(
  list(key = function(x) x),
  list(key = function(x) sub("-1$", "", x), says = "without \"-1\""),
  list(key = function(x) nucleotides(x, "(-[0-9]+)?"), says = "by the nucleotides and the number after them"),
  list(key = function(x) nucleotides(x, ""), says = "by the nucleotides")
)

# The first barcode in a name, with what `after` finds behind it; NA if there is none of 8 nucleotides.
nucleotides <- function(x, after) {
  at <- regexpr(barcode_pattern(after), x, perl = TRUE)
  ifelse(at > 0L, substring(x, at, at + attr(at, "match.length") - 1L), NA_character_)
}

barcode_pattern <- function(after) {
  paste0("(?<![A-Za-z0-9])[ACGT]{8,}(?:[-+][ACGT]{8,})*", after, "(?![A-Za-z0-9])")
}

# Two of `names` with one key that is also in `other`: which of them is meant, nobody can say.
refuse_ambiguous <- function(names, keys, other, here, there, rule) {
  shared <- keys %in% other & !is.na(keys)
  twice <- keys[shared][anyDuplicated(keys[shared])]
  if (length(twice) == 0L) return(invisible())
  abort(
    "names", "The cells ", quote_names(names[shared & keys == twice], 3L), " of ", here, " would all be one cell of ", there,
    ", matched ", rule$says, ".\n", several_samples
  )
}

# What is left of a name without its nucleotides tells the sample. Where one sample of one side would be two of the other, a
# few barcodes are shared by chance, and cells would get the calls of others.
refuse_two_samples <- function(names, partners, here, there) {
  sample <- without_nucleotides(names)
  partner <- without_nucleotides(partners)
  kinds <- !duplicated(paste0(sample, "\n", partner))
  twice <- anyDuplicated(partner[kinds])
  if (twice == 0L) return(invisible())
  of <- which(kinds)[partner[kinds] == partner[kinds][twice]]
  abort(
    "names", "The cells ", quote_names(names[of], 3L), " of ", here, " are named as of several samples, those that they match ",
    "in ", there, " (", quote_names(partners[of], 3L), ") as of one.\n", several_samples
  )
}

several_samples <- paste0(
  "  With several samples make the names alike with `cells`, for example cells = function(cell) paste0(\"S1_\", cell)."
)

without_nucleotides <- function(x) sub(barcode_pattern(""), " ", x, perl = TRUE)

# The calls of some of the cells, under the names that these have elsewhere.
take_cells <- function(calls, at, names) {
  was <- calls$cells$cell_barcode[at]
  calls$cells <- calls$cells[at, , drop = FALSE]
  calls$cells$cell_barcode <- names
  rownames(calls$cells) <- NULL
  pair <- match(calls$pairs$cell_barcode, was)
  keep <- !is.na(pair)
  calls$pairs <- calls$pairs[keep, , drop = FALSE]
  calls$pairs$cell_barcode <- names[pair[keep]]
  rownames(calls$pairs) <- NULL
  for (matrix in c("assigned", "counts")) {
    calls[[matrix]] <- calls[[matrix]][, at, drop = FALSE]
    colnames(calls[[matrix]]) <- names
  }
  calls
}

#' Take the calls out of an object
#'
#' The calls that [assign_guides()] or [attach_calls()] put into an object, as a `guide_calls`.
#'
#' @param x A SingleCellExperiment, SummarizedExperiment or Seurat object with calls.
#' @param modality The altExp or assay of the guides, see [assign_guides()]. NULL: it is found.
#' @return A `guide_calls`, see [assign_guides()], with the guides' own names. Objects keep the confidence of a cell's first guide
#'   only: `assignment_confidence` of `$pairs` is NA for its other guides. Cells without calls are in it as unassigned.
#' @section Errors:
#'   `kaichi_error_argument` for an object without calls, and those of [assign_guides()] for its counts.
#' @seealso [attach_calls()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' if (requireNamespace("SingleCellExperiment", quietly = TRUE)) {
#'   sce <- as_sce(assign_guides(path, model = "umi"))
#'   attached_calls(sce)
#' }
#' @export
attached_calls <- function(x, modality = NULL) {
  if (!inherits(x, "SummarizedExperiment") && !inherits(x, "SingleCellExperiment") && !inherits(x, "Seurat")) {
    abort(
      "argument", "Calls must be a guide_calls, or a SingleCellExperiment, SummarizedExperiment or Seurat object with calls, ",
      "not ", describe_class(x), "."
    )
  }
  got <- guide_counts(x, modality = modality)
  kept <- kept_calls(x, got$modality)
  lost <- setdiff(call_column_names, names(kept$columns))
  if (is.null(kept$provenance) || is.null(kept$assigned) || length(lost) > 0L) {
    abort("argument", "`x` has no calls. assign_guides(x) makes them, attach_calls() takes them from a file.")
  }
  counts <- got$counts
  features <- rownames(counts)
  assigned <- as_dgc(kept$assigned)[features, colnames(counts), drop = FALSE]
  assigned <- sort_rows(Matrix::drop0(assigned))
  guides <- original_names(features, kept$provenance$guide_names)
  rownames(counts) <- rownames(assigned) <- guides
  at <- match(colnames(counts), colnames(x))
  # The target is there only if the calls had a guide table.
  kept_names <- c(call_column_names, if (!is.null(kept$provenance$guides$target)) intersect("target", names(kept$columns)))
  cells <- data.frame(
    cell_barcode = colnames(counts), as.data.frame(kept$columns[kept_names])[at, , drop = FALSE], row.names = NULL,
    stringsAsFactors = FALSE
  )
  called <- called_pairs(list(assigned = assigned, counts = counts))
  first <- cells$guide_id[called$cell] == guides[called$guide]
  structure(
    c(list(
      cells = cells,
      pairs = data.frame(
        cell_barcode = cells$cell_barcode[called$cell], guide_id = guides[called$guide], umi_count = called$umi,
        assignment_confidence = ifelse(first, cells$assignment_confidence[called$cell], NA_real_), stringsAsFactors = FALSE
      ),
      assigned = assigned, counts = counts, fits = kept$provenance$fits, screen = kept$provenance$screen,
      model = kept$provenance$model, params = kept$provenance$params, version = kept$provenance$version
    ), kept$provenance[intersect("guides", names(kept$provenance))]),
    class = "guide_calls"
  )
}

call_column_names <- c(
  "guide_id", "umi_count", "assignment_confidence", "is_unassigned", "is_multi_infected", "n_guides_detected",
  "set_probability"
)

# What an object keeps of its calls: list(columns, assigned, provenance).
kept_calls <- function(x, modality) UseMethod("kept_calls")

#' The guides' own names
#'
#' Seurat takes no `_` and `|` in the names of features and puts `-` in their place. Where calls are attached, the guides' own
#' names are kept beside them; this gives them back.
#'
#' @inheritParams attached_calls
#' @return chr, the guides' own names, named by the features of the object, in their order.
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"), model = "umi")
#' if (requireNamespace("SeuratObject", quietly = TRUE)) {
#'   x <- as_seurat(calls)
#'   guide_names(x)
#' }
#' @export
guide_names <- function(x, modality = NULL) {
  got <- guide_counts(x, modality = modality)
  features <- rownames(got$counts)
  stats::setNames(original_names(features, kept_calls(x, got$modality)$provenance$guide_names), features)
}

# `map` has the guides' own names, named by feature.
original_names <- function(features, map) {
  own <- unname(map[features])
  if (is.null(map)) features else ifelse(is.na(own), features, own)
}
