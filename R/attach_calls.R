#' Attach guide calls to an object
#'
#' Joins calls, as of a file of guide counts, to the object with the expression of the same cells, by barcode.
#'
#' @param x A SingleCellExperiment, a SummarizedExperiment or a Seurat object.
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()]; or a list of them, named by sample, for an object of several
#'   samples whose cells are named `sample_barcode`, as `merge(add.cell.ids =)` of Seurat names them.
#' @param modality The altExp (or `mainExpName`) or assay of `x` that holds the guides. NULL: the one that has all guides of
#'   the calls; without one, the altExp `guides` or the assay `GDO` is added, with counts and calls.
#' @param join `"inner"` keeps the cells that are in both, and those with calls that were attached before. `"left"` keeps all cells of `x`: those without calls get NA as guide,
#'   `is_unassigned` TRUE and 0 guides, and zeros in an experiment or assay that is added.
#' @param cells NULL: cells are matched as below. Or a function that makes the names of the calls' cells those of `x`, as
#'   `function(cell) paste0("S1_", cell)`.
#' @param min_match The minimum share of the smaller side, the cells of `x` or those of the calls, that must be in the other. A number
#'   from 0 to 1. Fewer are an error, as a few barcodes of other cells agree by chance.
#'
#' @return `x` with the calls, see Containers of [assign_guides()]: columns of the cells, the 0/1 matrix `assigned`, and model,
#'   params, version, fits, screen and the guides' own names. A SummarizedExperiment without the guides gets the columns only.
#'   For a path or a matrix, which has no place for calls, `calls`.
#' @section How cells are matched:
#'   The first of these that finds enough cells (`min_match`): names as they are; names without a `-1` at the end; the nucleotides of
#'   the barcode with the number that follows (`AAAC-2` in `S1_AAAC-2` and `AAAC-2_1`); the nucleotides alone; and the same after 10x's
#'   translation of feature barcodes, which complements bases 8 and 9 (3' v3 chemistry). It must be one-to-one: two
#'   cells of one side that could be the same cell of the other are an error, and so are two samples, by what is before and
#'   after the nucleotides, that would be one sample of the other: name the cells alike with `cells` then. How many cells were matched, and how, is said in a message of the class
#'   `kaichi_message_choice`, unless all cells have the same names on both sides.
#' @section Several samples in one object:
#'   Calls for some of the cells change those cells only: calls that were attached before to other cells stay, with the fits they come
#'   from. [attached_calls()] then has the fits of all, with the column `sample`, and in `$sets` the model, params, fits and cells of each.
#'   After `cbind()` of experiments it finds the calls of each. `merge()` of Seurat objects drops how calls were made: attach them to the
#'   merged object.
#' @section Errors:
#'   `kaichi_error_names` for cells of which hardly any or none match, or that match two, and for guides that are not in `modality`;
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
attach_calls <- function(x, calls, modality = NULL, join = c("inner", "left"), cells = NULL, min_match = 0.1) {
  UseMethod("attach_calls")
}

#' @export
attach_calls.default <- function(x, calls, modality = NULL, join = c("inner", "left"), cells = NULL, min_match = 0.1) {
  if (is.character(x) || is.matrix(x) || inherits(x, "Matrix") || inherits(x, "DelayedMatrix")) return(calls)
  abort(
    "argument", "`x` is of class ", quote_names(class(x)), ", which has no place for calls that kaichi knows.\n",
    "  Give a SingleCellExperiment, a SummarizedExperiment or a Seurat object."
  )
}

are_several <- function(calls) is.list(calls) && !is.object(calls)

# What a container's method of attach_calls() does with its `attach`, which takes x, calls, join, cells and, where there are several
# sets of calls, the sample, and gives list(x, cells).
attach_one_or_each <- function(x, calls, join, cells, attach) {
  if (are_several(calls)) attach_each(x, calls, join, cells, attach) else attach(x, calls, join, cells)$x
}

# Sets of calls, named by sample, one after another: the cells of each are named sample_barcode in `x`.
attach_each <- function(x, calls, join, cells, attach) {
  samples <- names(calls)
  if (length(calls) == 0L || is.null(samples) || any(samples == "") || anyDuplicated(samples) > 0L) {
    abort("argument", "A list of calls must have a name for each, that of its sample: list(s1 = calls1, s2 = calls2).")
  }
  join <- check_join(join)
  with_calls <- character()
  for (sample in samples) {
    check_calls(calls[[sample]])
    ours <- calls[[sample]]$cells$cell_barcode
    rename <- if (!is.null(cells)) {
      cells
    } else if (!all(startsWith(ours, paste0(sample, "_")))) {
      function(cell) paste0(sample, "_", cell)
    }
    x <- attach(x, calls[[sample]], "left", rename, sample)
    with_calls <- c(with_calls, x$cells)
    x <- x$x
  }
  if (join == "inner" && !all(colnames(x) %in% with_calls)) x <- x[, colnames(x) %in% with_calls]
  x
}

check_join <- function(join) {
  if (identical(join, c("inner", "left"))) join <- "inner"
  check_choice(join, "join", c("inner", "left"))
}

# list(x, calls) with the cells of the join, the calls' cells named as in `x`. Cells with calls that were attached before, `kept`, stay.
join_cells <- function(x, calls, join, cells, min_match = 0.1, kept = character()) {
  check_calls(calls)
  join <- check_join(join)
  check_number(min_match, "min_match", 0, 1)
  theirs <- colnames(x)
  ours <- calls$cells$cell_barcode
  if (identical(ours, theirs) && is.null(cells)) return(list(x = x, calls = calls))
  check_names(theirs, ncol(x), "cell", "column")
  matched <- match_cells(renamed_cells(ours, cells), theirs, min_match = min_match)
  found <- which(!is.na(matched$at))
  at <- matched$at[found]
  if (length(found) < length(ours) || length(at) < length(theirs) || matched$how != "") {
    say_choice(
      "Calls for ", big(length(at)), " of the ", count_of(length(theirs), "cell"), " of `x` (", big(length(ours)),
      " in the calls)", matched$how,
      if (join == "inner" && length(at) < length(theirs)) "; the others are dropped (join = \"inner\")", "."
    )
  }
  if (join == "inner" && length(at) < length(theirs)) {
    stay <- sort(union(at, which(theirs %in% kept)))
    if (length(stay) < length(theirs)) x <- x[, stay]
  }
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
# Barcodes that agree by chance are no match: of the smaller side at least `min_match` must be on the other.
match_cells <- function(ours, theirs, here = "the calls", there = "`x`", same = "the object with the same cells", min_match = 0) {
  enough <- max(1, min_match * min(length(ours), length(theirs)))
  most <- 0L
  for (rule in c(cell_rules, translated_rules)) {
    us <- rule$key(if (isTRUE(rule$translates)) translated_barcodes(ours) else ours)
    them <- rule$key(theirs)
    at <- match(us, them, incomparables = NA)
    most <- max(most, sum(!is.na(at)))
    if (sum(!is.na(at)) < enough) next
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
  if (most > 0L) {
    abort(
      "names", "Hardly any of the cells of ", here, " (", big(length(ours)), ", such as ", quote_names(ours, 1L), ") is in ", there, " (",
      big(length(theirs)), ", such as ", quote_names(theirs, 1L), "): ", big(most), ", which may be chance.\n  Give ", same,
      ", make the names alike with `cells`, or if they are right give `min_match = 0`."
    )
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

# The feature barcodes of 10x's 3' v3 chemistry differ from those of the RNA of the same cell: its beads carry two barcodes each.
translated_rules <- lapply(cell_rules, function(rule) {
  rule$says <- paste0(c(rule$says, "after 10x's translation of feature barcodes, which complements bases 8 and 9"), collapse = " ")
  rule$translates <- TRUE
  rule
})

# Bases 8 and 9 of the nucleotides complemented.
translated_barcodes <- function(x) {
  at <- regexpr(barcode_pattern(""), x, perl = TRUE)
  has <- which(at > 0L & attr(at, "match.length") >= 9L)
  from <- at[has] + 7L
  substring(x[has], from, from + 1L) <- chartr("ACGT", "TGCA", substring(x[has], from, from + 1L))
  x
}

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
  if (is.null(kept$provenance) && !is.null(kept$assigned) && length(lost) == 0L) {
    abort(
      "argument", "`x` has the columns of calls, but not how they were made: merge() of Seurat objects drops that.\n",
      "  Attach the calls of each sample to the merged object: attach_calls(x, list(s1 = calls1, s2 = calls2))."
    )
  }
  if (is.null(kept$provenance) || is.null(kept$assigned) || length(lost) > 0L) {
    abort("argument", "`x` has no calls. assign_guides(x) makes them, attach_calls() takes them from a file.")
  }
  sets <- kept$provenance$sets
  kept$provenance <- joint_provenance(kept$provenance)
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
    ), kept$provenance[intersect("guides", names(kept$provenance))], if (!is.null(sets)) list(sets = sets)),
    class = "guide_calls"
  )
}

# How the calls in an object were made, after new calls for `cells` of the cells `all`. Calls of other cells, `before`, keep their own: then
# `sets` has the provenance of each, with its cells, and the rest is that of the newest.
with_earlier <- function(provenance, before, cells, all, sample = NULL) {
  own <- provenance
  # Where nothing is said, all cells have calls.
  if (!all(all %in% cells)) own$cells <- cells
  if (is.null(before)) {
    if (!is.null(sample)) own$sets <- stats::setNames(list(c(provenance, list(cells = cells))), sample)
    return(own)
  }
  sets <- before$sets
  if (is.null(sets)) {
    earlier <- before[!names(before) %in% c("guide_names", "n_cells", "cells")]
    sets <- list(earlier = c(earlier, list(cells = cells_before(before, all))))
  }
  sets <- lapply(sets, function(set) {
    set$cells <- setdiff(intersect(set$cells, all), cells)
    set
  })
  sets <- sets[lengths(lapply(sets, `[[`, "cells")) > 0L & !names(sets) %in% sample]
  if (length(sets) == 0L && is.null(sample)) return(own)
  new <- stats::setNames(list(c(provenance, list(cells = cells))), if (is.null(sample)) "newest" else sample)
  sets <- c(sets, new)
  names(sets) <- make.unique(names(sets), sep = " ")
  own$cells <- unique(unlist(lapply(sets, `[[`, "cells")))
  if (all(all %in% own$cells)) own$cells <- NULL
  c(own, list(sets = sets))
}

# The cells with calls that were attached before, of the cells `all`.
cells_before <- function(before, all) {
  if (is.null(before)) character() else if (is.null(before$cells)) all else before$cells
}

# One table of fits for all sets of calls, with the set of each fit as `sample`.
joint_provenance <- function(provenance) {
  sets <- provenance$sets
  if (length(sets) < 2L) return(provenance)
  fits <- lapply(sets, `[[`, "fits")
  columns <- Reduce(intersect, lapply(fits, names))
  provenance$fits <- do.call(rbind, c(
    Map(function(fit, sample) cbind(fit[columns], sample = sample, stringsAsFactors = FALSE), fits, names(sets)),
    list(make.row.names = FALSE)
  ))
  models <- unique(vapply(sets, `[[`, "", "model"))
  if (length(models) > 1L) {
    say_choice("The calls are of several models, ", quote_names(models), "; `$sets` says which of which cells. `$model` is the newest.")
  }
  provenance["screen"] <- list(NULL)
  provenance
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
