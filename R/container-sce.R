# SummarizedExperiment and SingleCellExperiment. The guides are an experiment of their own: the main one, or one altExp.
# `modality` is the name of the altExp; NULL, once the choice is made, is the main experiment.
#
# Calls go back as columns of colData(x), as the assay "assigned" of the guide experiment and as its metadata()$kaichi.

#' @export
guide_counts.SummarizedExperiment <- function(x, batch = NULL, covariate = NULL, modality = NULL, layer = NULL, n_jobs = NULL) {
  need_experiment_packages(x)
  check_one_name(layer, "layer")
  modality <- guide_experiment(x, modality)
  experiment <- if (is.null(modality)) x else SingleCellExperiment::altExp(x, modality)
  refuse_genes(experiment, modality)
  counts <- check_counts(experiment_layer(experiment, layer, modality), modality)
  metadata <- SummarizedExperiment::colData(x)
  batch <- column_values(batch, "batch", metadata, "colData(x)")
  covariate <- column_values(covariate, "covariate", metadata, "colData(x)")
  checked_counts(counts, batch, covariate, modality)
}

#' @export
attach_calls.SummarizedExperiment <- function(x, calls, modality = NULL, join = c("inner", "left"), cells = NULL, min_match = 0.1) {
  need_experiment_packages(x)
  attach_one_or_each(x, calls, join, cells, function(x, calls, join, cells, sample = NULL) {
    attach_to_experiment(x, calls, modality, join, cells, min_match, sample)
  })
}

# list(x, cells): the cells with calls, these or earlier, as `x` names them. `sample` names the set of calls, where there are several.
attach_to_experiment <- function(x, calls, modality, join, cells, min_match, sample = NULL) {
  check_calls(calls)
  place <- place_of_calls(x, calls, modality)
  before <- if (!identical(place, NA_character_)) earlier_calls(x, place)
  joined <- join_cells(x, calls, join, cells, min_match, before$cells)
  x <- joined$x
  calls <- joined$calls
  list(x = put_calls(x, calls, place, before$provenance, sample), cells = c(before$cells, calls$cells$cell_barcode))
}

# The calls that an experiment has already: list(provenance, cells); NULL without any.
earlier_calls <- function(x, modality) {
  kept <- kept_calls(x, modality)
  if (is.null(kept$provenance) || !all(call_column_names %in% names(kept$columns))) return(NULL)
  list(provenance = kept$provenance, cells = cells_before(kept$provenance, colnames(x)))
}

put_calls <- function(x, calls, modality, before, sample) {
  columns <- call_columns(calls, colnames(x), SummarizedExperiment::colData(x))
  for (name in names(columns)) SummarizedExperiment::colData(x)[[name]] <- columns[[name]]
  if (is.null(modality)) return(keep_calls(x, calls, colnames(x), before, sample))
  if (is.na(modality)) return(add_guides(x, calls, sample))
  # withDimnames = FALSE leaves the altExp's own column names, or their absence, as they are.
  SingleCellExperiment::altExp(x, modality, withDimnames = FALSE) <-
    keep_calls(SingleCellExperiment::altExp(x, modality, withDimnames = FALSE), calls, colnames(x), before, sample)
  x
}

# Where the calls go: an altExp, NULL for the main experiment, NA if no experiment has the guides.
place_of_calls <- function(x, calls, modality) {
  if (!is.null(modality)) return(guide_experiment(x, modality))
  guides <- rownames(calls$assigned)
  main <- if (inherits(x, "SingleCellExperiment")) SingleCellExperiment::mainExpName(x)
  if (all(guides %in% rownames(x)) || (!is.null(main) && is_guide_name(main))) return(NULL)
  alts <- if (inherits(x, "SingleCellExperiment")) SingleCellExperiment::altExpNames(x)
  found <- alts[vapply(alts, function(name) all(guides %in% rownames(SingleCellExperiment::altExp(x, name))), NA)]
  if (length(found) > 1L) {
    abort(
      "modality", "More than one experiment of `x` has the guides of the calls: the altExps ", quote_names(found, 20L),
      ".\n  Name one of them with `modality =`."
    )
  }
  if (length(found) == 1L) return(found)
  if ("guides" %in% alts) {
    abort(
      "names", "`x` has an altExp \"guides\", but not with all guides of the calls, such as ",
      quote_names(setdiff(guides, rownames(SingleCellExperiment::altExp(x, "guides"))), 1L),
      ".\n  Take it out, with altExp(x, \"guides\") <- NULL, or rename it, and the guides of the calls are added."
    )
  }
  NA_character_
}

add_guides <- function(x, calls, sample = NULL) {
  if (!inherits(x, "SingleCellExperiment")) {
    say_choice("`x` is no SingleCellExperiment and does not have the guides: it gets the columns of the cells only.")
    return(x)
  }
  counts <- place_by_name(calls$counts, rownames(calls$counts), colnames(x))
  guides <- SingleCellExperiment::SingleCellExperiment(list(counts = counts))
  SingleCellExperiment::altExp(x, "guides") <- keep_calls(guides, calls, colnames(x), NULL, sample)
  x
}

# UseMethod() knows what a class extends only while the package that defines it is loaded, which it need not be after
# readRDS(); these two then find the way.
#' @export
guide_counts.SingleCellExperiment <- guide_counts.SummarizedExperiment

#' @export
attach_calls.SingleCellExperiment <- attach_calls.SummarizedExperiment

#' @export
kept_calls.SummarizedExperiment <- function(x, modality) {
  experiment <- if (is.null(modality)) x else SingleCellExperiment::altExp(x, modality)
  list(
    columns = SummarizedExperiment::colData(x),
    assigned = if ("assigned" %in% SummarizedExperiment::assayNames(experiment)) {
      SummarizedExperiment::assay(experiment, "assigned")
    },
    provenance = joined_provenance(x, S4Vectors::metadata(experiment))
  )
}

# cbind() puts the metadata of experiments one after another: each has its own provenance, and its cells follow each other.
joined_provenance <- function(x, metadata) {
  found <- unname(metadata[names(metadata) == "kaichi"])
  if (length(found) < 2L) return(metadata$kaichi)
  sets <- list()
  n <- vapply(found, function(one) if (is.null(one$n_cells)) NA_integer_ else one$n_cells, 0L)
  # Cells that were left out since cannot be told apart.
  first <- if (identical(sum(n), ncol(x))) cumsum(c(0L, n))
  for (k in seq_along(found)) {
    own <- found[[k]]$sets
    if (is.null(own)) {
      cells <- if (!is.null(first)) colnames(x)[first[k] + seq_len(n[k])] else character()
      own <- list(c(found[[k]][!names(found[[k]]) %in% c("n_cells", "cells")], list(cells = cells)))
      names(own) <- paste("set", k)
    }
    sets <- c(sets, own)
  }
  names(sets) <- make.unique(names(sets), sep = " ")
  newest <- found[[length(found)]]
  newest$sets <- sets
  newest
}

#' @export
kept_calls.SingleCellExperiment <- kept_calls.SummarizedExperiment

need_experiment_packages <- function(x) {
  need_package("SummarizedExperiment", "to use a SummarizedExperiment", "Bioconductor")
  if (inherits(x, "SingleCellExperiment")) {
    need_package("SingleCellExperiment", "to use a SingleCellExperiment", "Bioconductor")
  }
}

# `before` is how earlier calls of other cells were made, or NULL.
keep_calls <- function(experiment, calls, cells, before = NULL, sample = NULL) {
  assays <- SummarizedExperiment::assayNames(experiment)
  earlier <- if (!is.null(before) && "assigned" %in% assays) SummarizedExperiment::assay(experiment, "assigned", withDimnames = FALSE)
  assigned <- assigned_with(calls, earlier, rownames(experiment), cells)
  if (!is.null(before) && "counts" %in% assays) {
    counts <- counts_with(calls, SummarizedExperiment::assay(experiment, "counts", withDimnames = FALSE), rownames(experiment), cells)
    if (!is.null(counts)) SummarizedExperiment::assay(experiment, "counts", withDimnames = FALSE) <- counts
  }
  SummarizedExperiment::assay(experiment, "assigned", withDimnames = FALSE) <- assigned
  columns <- guide_columns(calls, rownames(experiment))
  for (name in names(columns)) SummarizedExperiment::rowData(experiment)[[name]] <- columns[[name]]
  metadata <- S4Vectors::metadata(experiment)
  metadata <- metadata[names(metadata) != "kaichi"]
  provenance <- with_earlier(call_provenance(calls), before, calls$cells$cell_barcode, cells, sample)
  S4Vectors::metadata(experiment) <- c(metadata, list(kaichi = c(provenance, list(n_cells = length(cells)))))
  experiment
}

# Which experiment holds the guides: the name of an altExp, or NULL for the main experiment.
guide_experiment <- function(x, modality) {
  check_one_name(modality, "modality")
  single <- inherits(x, "SingleCellExperiment")
  alts <- if (single) SingleCellExperiment::altExpNames(x)
  main <- if (single) SingleCellExperiment::mainExpName(x)
  there <- paste0(
    "the main experiment", if (!is.null(main)) paste0(" ", quote_names(main)),
    if (length(alts) > 0L) paste0(" and the altExps ", quote_names(alts, 20L)) else if (single) " and no altExps"
  )
  if (!is.null(modality)) {
    if (modality %in% alts) return(modality)
    if (identical(modality, main)) return(NULL)
    abort("modality", "`modality` is ", quote_names(modality), ", which is not in `x`.\n  `x` has ", there, ".")
  }

  types <- feature_types(x)
  main_holds_guides <- (!is.null(main) && is_guide_name(main)) || all_guides(types) ||
    (length(alts) == 0L && is.null(types) && (is.null(main) || !is_gene_modality(main)))
  alt_holds_guides <- vapply(alts, function(name) {
    is_guide_name(name) || all_guides(feature_types(SingleCellExperiment::altExp(x, name)))
  }, logical(1L))
  found <- alts[alt_holds_guides]

  if (main_holds_guides && length(found) == 0L) {
    message("Taking the guides from the main experiment.")
    return(NULL)
  }
  if (!main_holds_guides && length(found) == 1L) {
    message("Taking the guides from the altExp ", quote_names(found), ".")
    return(found)
  }
  if (length(found) > 0L) {
    abort(
      "modality", "More than one experiment of `x` may hold the guides: ", if (main_holds_guides) "the main experiment",
      if (main_holds_guides && !is.null(main)) paste0(" ", quote_names(main)), if (main_holds_guides) " and ",
      if (length(found) == 1L) "the altExp " else "the altExps ", quote_names(found, 20L),
      ".\n  Name one of them with `modality =`",
      if (main_holds_guides && is.null(main)) " (the main experiment after mainExpName(x) <- \"guides\")", "."
    )
  }
  refuse_genes(x, NULL)
  abort(
    "modality", "No experiment of `x` looks like guides: `x` has ", there, ".\n",
    "  Name the altExp that holds them with `modality =`",
    if (single) "; if it is the main experiment, name that so: mainExpName(x) <- \"guides\"", "."
  )
}

# The kind of every feature, or NULL if rowData does not say. DropletUtils writes Type, other readers the rest.
feature_types <- function(experiment) {
  features <- SummarizedExperiment::rowData(experiment, use.names = FALSE)
  column <- intersect(c("Type", "type", "feature_type", "feature_types"), names(features))
  if (length(column) > 0L) as.character(features[[column[1L]]])
}

all_guides <- function(types) length(types) > 0L && all(is_guide_type(types))

# Genes beside guides, or genes alone, must never be taken for guides. Other features may be, when the user names them.
refuse_genes <- function(experiment, modality) {
  types <- feature_types(experiment)
  guide <- is_guide_type(types)
  if (all(guide) || !(any(guide) || any(grepl("^gene", types, ignore.case = TRUE)))) return(invisible())
  sizes <- table(types, useNA = "ifany")
  what <- if (is.null(modality)) "The main experiment" else paste0("The altExp ", quote_names(modality))
  holds <- paste0("\"", names(sizes), "\" (", as.vector(sizes), ")", collapse = ", ")
  if (!any(guide)) {
    abort(
      "modality", what, " holds genes, not guides; its feature types are ", holds, ".\n",
      "  Give the experiment of the guides, or name the altExp that holds them with `modality =`."
    )
  }
  abort(
    "modality", what, " holds other features beside the guides; its feature types are ", holds, ".\n",
    "  Split it first: ",
    if (inherits(experiment, "SingleCellExperiment")) {
      "x <- splitAltExps(x, rowData(x)$<the column of types>), or "
    },
    "keep only the rows of the guides."
  )
}

experiment_layer <- function(experiment, layer, modality) {
  layers <- SummarizedExperiment::assayNames(experiment)
  # An experiment may hold assays without names.
  if (is.null(layers)) layers <- rep("", length(SummarizedExperiment::assays(experiment, withDimnames = FALSE)))
  at <- if (!is.null(layer)) {
    match(layer, layers)
  } else if ("counts" %in% layers) {
    match("counts", layers)
  } else {
    # What an earlier run attached is no choice.
    others <- which(layers != "assigned")
    if (length(others) == 1L) others else NA_integer_
  }
  if (is.na(at)) {
    abort(
      "argument", if (is.null(modality)) "The main experiment" else paste0("The altExp ", quote_names(modality)),
      " has no assay ", quote_names(if (is.null(layer)) "counts" else layer), ".\n",
      if (length(layers) == 0L) "  It has no assays." else "  Its assays: ",
      if (length(layers) > 0L) paste0(quote_names(layers, 20L), ". Name the one with the raw counts with `layer =`.")
    )
  }
  SummarizedExperiment::assay(experiment, at)
}
