# Seurat. The guides are one assay. What to do is told by the class of that assay, not by the version of SeuratObject:
#   Assay   (v3, v4; also found in SeuratObject 5) has three fixed slots. `assigned` becomes an assay "<assay>_assigned".
#   Assay5  has layers, which may be split (counts.1, counts.2 ...), and may hold only some cells of the object.
#           `assigned` becomes a layer.
# The columns go into meta.data, the rest into Misc(x[[assay]], "kaichi").
#
# The slots are used where the accessors of SeuratObject 4 and 5 differ, or warn about what is meant here.

#' @export
guide_counts.Seurat <- function(x, batch = NULL, covariate = NULL, modality = NULL, layer = NULL, n_jobs = NULL) {
  need_package("SeuratObject", "to use a Seurat object")
  check_one_name(layer, "layer")
  modality <- guide_assay(x, modality)
  counts <- check_counts(assay_layer(x@assays[[modality]], if (is.null(layer)) "counts" else layer, modality), modality)
  batch <- column_values(batch, "batch", x@meta.data, "x@meta.data")
  covariate <- column_values(covariate, "covariate", x@meta.data, "x@meta.data")
  # One value for each cell of the object; the assay may have fewer, in another order.
  at <- match(colnames(counts), colnames(x))
  if (length(batch) == ncol(x)) batch <- batch[at]
  if (length(covariate) == ncol(x) && is.null(names(covariate))) covariate <- covariate[at]
  checked_counts(counts, batch, covariate, modality)
}

#' @export
attach_calls.Seurat <- function(x, calls, modality = NULL, join = c("inner", "left"), cells = NULL, min_match = 0.1) {
  need_package("SeuratObject", "to use a Seurat object")
  attach_one_or_each(x, calls, join, cells, function(x, calls, join, cells, sample = NULL) {
    attach_to_seurat(x, calls, modality, join, cells, min_match, sample)
  })
}

# list(x, cells): the cells with calls, these or earlier, as `x` names them. `sample` names the set of calls, where there are several.
attach_to_seurat <- function(x, calls, modality, join, cells, min_match, sample = NULL) {
  check_calls(calls)
  guides <- rownames(calls$assigned)
  modality <- assay_of_calls(x, guides, modality)
  kept <- if (!is.na(modality)) kept_calls(x, modality)
  has_calls <- !is.null(kept$assigned) && all(call_column_names %in% names(kept$columns))
  earlier_cells <- if (has_calls) cells_before(kept$provenance, colnames(x))
  joined <- join_cells(x, calls, join, cells, min_match, earlier_cells)
  x <- joined$x
  calls <- joined$calls
  before <- if (has_calls) kept$provenance
  if (is.na(modality)) {
    modality <- "GDO"
    x@assays[[modality]] <- new_assay(place_by_name(calls$counts, guides, colnames(x)), modality)
  }
  columns <- call_columns(calls, colnames(x), x@meta.data)
  x@meta.data[names(columns)] <- columns

  assay <- x@assays[[modality]]
  renamed <- calls
  rownames(renamed$assigned) <- rownames(renamed$counts) <- seurat_names(guides, rownames(assay))
  own_names <- stats::setNames(guides, rownames(renamed$assigned))
  earlier <- if (has_calls) kept_calls(x, modality)$assigned
  assigned <- assigned_with(renamed, earlier, rownames(assay), colnames(assay))
  if (has_calls && inherits(assay, "Assay")) {
    counts <- counts_with(renamed, assay@counts, rownames(assay), colnames(assay))
    if (!is.null(counts)) assay@counts <- assay@data <- counts
  }
  if (inherits(assay, "Assay")) {
    beside <- assigned_assay(modality)
    x@assays[[beside]] <- new_assay(assigned, beside)
  } else {
    assay <- set_assigned_layer(assay, assigned)
  }
  # Only where Seurat has other names than the calls.
  own_names <- own_names[own_names != names(own_names)]
  provenance <- with_earlier(call_provenance(calls), before, calls$cells$cell_barcode, colnames(x), sample)
  assay@misc[["kaichi"]] <- c(provenance, if (length(own_names) > 0L) list(guide_names = own_names))
  x@assays[[modality]] <- assay
  list(x = x, cells = c(earlier_cells, calls$cells$cell_barcode))
}

# The assay with the guides of the calls; NA if there is none.
assay_of_calls <- function(x, guides, modality) {
  if (!is.null(modality)) return(guide_assay(x, modality))
  assays <- setdiff(names(x@assays), assigned_assay(names(x@assays)))
  dashed <- dashed_names(guides)
  found <- assays[vapply(assays, function(name) {
    features <- rownames(x@assays[[name]])
    all(guides %in% features | dashed %in% features)
  }, NA)]
  if (length(found) == 1L) return(found)
  if (length(found) > 1L) {
    abort(
      "modality", "More than one assay of `x` has the guides of the calls: ", quote_names(found, 20L),
      ".\n  Name one of them with `modality =`."
    )
  }
  if ("GDO" %in% assays) {
    abort(
      "names", "`x` has an assay \"GDO\", but not with all guides of the calls, such as ",
      quote_names(guides[!dashed %in% rownames(x@assays[["GDO"]])], 1L),
      ".\n  Take it out, with x[[\"GDO\"]] <- NULL, or rename it, and the guides of the calls are added."
    )
  }
  # Two guides of one name are an error before anything is made of them.
  seurat_names(guides, dashed)
  NA_character_
}

#' @export
kept_calls.Seurat <- function(x, modality) {
  assay <- x@assays[[modality]]
  beside <- assigned_assay(modality)
  list(
    columns = x@meta.data,
    assigned = if (!inherits(assay, "Assay")) {
      if ("assigned" %in% names(assay@layers)) layer_data("assigned", assay, modality)
    } else if (beside %in% names(x@assays)) {
      x@assays[[beside]]@counts
    },
    provenance = assay@misc[["kaichi"]]
  )
}

assigned_assay <- function(modality) paste0(modality, "_assigned")

guide_assay <- function(x, modality) {
  check_one_name(modality, "modality")
  assays <- names(x@assays)
  if (!is.null(modality)) {
    if (modality %in% assays) return(modality)
    abort(
      "modality", "`modality` is ", quote_names(modality), ", which is no assay of `x`.\n  Its assays: ",
      quote_names(assays, 20L), "."
    )
  }
  # What an earlier run attached is no choice.
  assays <- setdiff(assays, assigned_assay(assays))
  if (length(assays) == 1L && is_gene_modality(assays)) {
    abort(
      "modality", "The only assay of `x` is ", quote_names(assays), ", which is named for genes.\n",
      "  If it holds the guides, say so with `modality = ", quote_names(assays), "`; else give the object that has them."
    )
  }
  found <- if (length(assays) == 1L) assays else assays[is_guide_name(assays)]
  if (length(found) == 1L) {
    message("Taking the guides from the assay ", quote_names(found), ".")
    return(found)
  }
  if (length(found) > 1L) {
    abort(
      "modality", "More than one assay of `x` may hold the guides: ", quote_names(found, 20L),
      ".\n  Name one of them with `modality =`."
    )
  }
  abort(
    "modality", "No assay of `x` has a name that says guides: ", quote_names(assays, 20L),
    ".\n  Name the assay that holds them with `modality =`."
  )
}

assay_layer <- function(assay, layer, modality) {
  old <- inherits(assay, "Assay")
  layers <- if (old) c("counts", "data", "scale.data") else names(assay@layers)
  parts <- if (old) intersect(layer, layers) else split_layers(assay, layer, modality)
  if (length(parts) == 0L) {
    abort(
      "argument", "The assay ", quote_names(modality), " has no layer ", quote_names(layer), ".\n  Its layers: ",
      quote_names(layers, 20L), ". Name the one with the raw counts with `layer =`."
    )
  }
  if (old) {
    counts <- methods::slot(assay, layer)
    if (length(counts) == 0L) {
      abort(
        "argument", "The layer ", quote_names(layer), " of the assay ", quote_names(modality), " is empty.\n",
        "  Name the one with the raw counts with `layer =`."
      )
    }
    return(counts)
  }
  counts <- lapply(parts, layer_data, assay = assay, modality = modality)
  if (length(counts) == 1L) return(counts[[1L]])
  guides <- intersect(rownames(assay), unlist(lapply(counts, rownames)))
  cells <- intersect(colnames(assay), unlist(lapply(counts, colnames)))
  Reduce(`+`, lapply(counts, function(part) place_by_name(as_dgc(part), guides, cells)))
}

# The layers of an Assay5 that together are `layer`: itself, or its parts ("counts.1", "counts.2" ...).
split_layers <- function(assay, layer, modality) {
  layers <- names(assay@layers)
  parts <- layers[layers == layer | startsWith(layers, paste0(layer, "."))]
  cells <- lapply(parts, function(part) SeuratObject::Cells(assay, layer = part))
  whole <- match(layer, parts)
  if (!is.na(whole) && all(colnames(assay) %in% cells[[whole]])) return(layer)
  twice <- anyDuplicated(unlist(cells))
  if (twice > 0L) {
    abort(
      "argument", "The layers ", quote_names(parts, 20L), " of the assay ", quote_names(modality),
      " are not parts of one: the cell ", quote_names(unlist(cells)[twice]), " is in more than one.\n",
      "  Name the one with the raw counts with `layer =`."
    )
  }
  parts
}

layer_data <- function(layer, assay, modality) {
  # subset() of SeuratObject 5.0 to one feature or one cell leaves a vector where the matrix was.
  if (length(dim(assay@layers[[layer]])) != 2L) {
    abort(
      "counts", "The layer ", quote_names(layer), " of the assay ", quote_names(modality), " is not a matrix, which ",
      "subset() to one guide or one cell does to an Assay5.\n  Give the object as it was before, or its counts as a matrix."
    )
  }
  # Looked up when needed: SeuratObject 4 has no LayerData(), and R CMD check there would not have it after `::`.
  getExportedValue("SeuratObject", "LayerData")(assay, layer = layer)
}

set_assigned_layer <- function(assay, assigned) {
  set <- getExportedValue("SeuratObject", "LayerData<-")
  # Earlier calls go first, and their parts, which merge() and split() make, with them.
  for (old in grep("^assigned($|[.])", names(assay@layers), value = TRUE)) assay <- set(assay, layer = old, value = NULL)
  set(assay, layer = "assigned", value = assigned)
}

# Seurat takes no underscores and pipes in the names of features and puts dashes in their place.
seurat_names <- function(guides, features) {
  dashed <- dashed_names(guides)
  change <- !guides %in% features & dashed %in% features
  guides[change] <- dashed[change]
  twice <- anyDuplicated(guides)
  if (twice > 0L) {
    abort(
      "names", "Two guides of the calls have the name ", quote_names(guides[twice]), " in the Seurat object.\n",
      "  Give guides names that differ in more than \"_\" and \"-\"."
    )
  }
  guides
}

dashed_names <- function(guides) gsub("[_|]", "-", guides)

new_assay <- function(counts, name) {
  rownames(counts) <- dashed_names(rownames(counts))
  assay <- SeuratObject::CreateAssayObject(counts = counts)
  SeuratObject::Key(assay) <- paste0(tolower(gsub("[^[:alnum:]]", "", name)), "_")
  assay
}
