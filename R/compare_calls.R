#' Compare sets of calls
#'
#' How far two or more sets of calls agree, and where they differ: of several models, of several thresholds, of kaichi and
#' another tool.
#'
#' @param ... For `compare_calls()` two or more sets of calls, with names or without; for `compare_models()` it must be empty.
#'   A set is one of
#'   \describe{
#'     \item{calls}{A `guide_calls` of [assign_guides()] or [decide_guides()]; or a SingleCellExperiment, SummarizedExperiment
#'       or Seurat object with calls, see [attached_calls()].}
#'     \item{a data.frame}{With one row per (cell, guide) pair and the columns `cell_barcode` and `guide_id`, and perhaps
#'       `umi_count`; or crispat's `cell`, `gRNA`, `UMI_counts`; or, with one row per cell, Cell Ranger's `cell_barcode`,
#'       `feature_call` and `num_umis`, whose guides are parted by `|`.}
#'     \item{a path}{Of a CSV file with such columns, as [write_calls()], crispat (`assignments.csv`) and Cell Ranger
#'       (`protospacer_calls_per_cell.csv`) write it.}
#'   }
#' @param cells NULL: the cells of the later sets are matched to those of the first as [attach_calls()] does it. Or a function
#'   that makes the names of the cells of the later sets those of the first, as `function(cell) paste0("S1_", cell)`.
#' @inheritParams assign_guides
#' @param min_match The minimum share of the smaller of two sets of cells that must be in the other, as in [attach_calls()].
#' @param models chr, the names of two or more models of [guide_models()]. NULL is all of them.
#' @param min_umi As in [assign_guides()], for all models.
#'
#' @return An object of class `calls_comparison`, a list with
#'   \describe{
#'     \item{sets}{data.frame, one row per set: `set` chr; `n_pairs`, `n_cells`, `n_guides` int, called pairs, and the cells and
#'       guides in them.}
#'     \item{jaccard}{dbl matrix, sets x sets, 0 to 1: pairs called by both, of those called by either (Jaccard index); NaN
#'       where neither calls any.}
#'     \item{pairs}{data.frame, one row per two sets: `a`, `b` chr; `n_a`, `n_b`, `n_both` int; `jaccard` dbl; `n_cells_differ`
#'       int, cells whose called guides differ.}
#'     \item{guides}{data.frame, one row per guide that some set calls: `guide_id` chr; one int column per set, its called
#'       cells; `n_all`, `n_any` int, cells in which all sets, any set calls it; `jaccard` dbl, `n_all / n_any`. The least
#'       agreement first.}
#'     \item{cells}{data.frame, one row per cell that some set calls: `cell_barcode` chr; one int column per set, its called
#'       guides; `n_all`, `n_any` int, guides that all sets, any set calls; `agree` lgl, all sets call the same guides.}
#'     \item{differ}{data.frame, one row per pair that some set calls and another does not: `cell_barcode`, `guide_id` chr;
#'       `umi_count` int, its UMIs, and `cell_umis` int, those of all guides of the cell, NA where no set has the counts; one
#'       lgl column per set.}
#'   }
#'   Cells are named as in the first set that has them. The order is that in which cells and guides first occur.
#' @section Errors:
#'   `kaichi_error_argument` for less than two sets or models, for names that are not unique, and for a set that is none of the
#'   above; `kaichi_error_file` for a file that cannot be read, `kaichi_error_format` for columns that are not those above;
#'   `kaichi_error_names` for cells or guides that no two sets share; and those of [assign_guides()].
#' @seealso [plot_model_agreement()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' compared <- compare_models(path, c("umi", "poisson_gauss", "ambient"))
#' compared
#' head(compared$differ)
#'
#' # Of a file and of calls.
#' file <- tempfile(fileext = ".csv")
#' write_calls(assign_guides(path, "max"), file)
#' compare_calls(gauss = assign_guides(path, "gauss"), max = file)$pairs
#' @export
compare_calls <- function(..., cells = NULL, min_match = 0.1) {
  sets <- list(...)
  if (length(sets) < 2L) abort("argument", "compare_calls() needs two sets of calls, or more.")
  named <- if (is.null(names(sets))) rep("", length(sets)) else names(sets)
  found <- lapply(seq_along(sets), function(k) call_set(sets[[k]], named[k], k))
  given <- vapply(found, `[[`, "", "name")
  given[named == ""] <- make.unique(given[named == ""], sep = " ")
  names(found) <- given
  check_number(min_match, "min_match", 0, 1)
  compare_sets(found, cells, min_match)
}

#' @rdname compare_calls
#' @export
compare_models <- function(x, models = NULL, ..., min_umi = 0, batch = NULL, covariate = NULL, modality = NULL, layer = NULL,
                           feature_type = NULL, orientation = NULL, features = NULL, barcodes = NULL, n_jobs = NULL,
                           control = model_control()) {
  check_no_dots("compare_models", ...)
  if (is.null(models)) models <- guide_models()$model
  if (!is.character(models) || length(models) < 2L || anyDuplicated(models) > 0L) {
    abort("argument", "`models` must be the names of two or more models, each once; guide_models() lists them.")
  }
  infos <- lapply(models, find_model)
  check_control(control)
  check_n_jobs(n_jobs)
  check_number(min_umi, "min_umi", 0, Inf)
  if (!is.null(covariate) && !any(vapply(infos, `[[`, NA, "uses_covariate"))) refuse_covariate(covariate, infos[[1L]])
  choices <- file_choices(feature_type, orientation, features, barcodes)
  counts <- verb_counts(x, infos, batch, covariate, modality, layer, n_jobs, choices)
  sets <- lapply(infos, function(info) {
    given <- counts
    if (!info$uses_covariate) given["covariate"] <- list(NULL)
    scores <- score_counts(given, info, n_jobs, control)
    decision <- choose_rule(info)
    call_set(decide_scores(scores, info, decision$rule, decision$cut, min_umi, n_jobs), info$model, 1L)
  })
  compare_sets(stats::setNames(sets, models), NULL, 0)
}

# Any kind of calls -> list(name, cells (all that were looked at), cell, guide, umi (one each per pair), counts or NULL).
call_set <- function(x, name, at) {
  what <- if (name == "") paste("set", at) else paste("the set", quote_names(name))
  if (is.character(x)) {
    check_string(x, if (name == "") paste("set", at) else name, "the path of a CSV file of calls")
    if (name == "") name <- basename(x)
    x <- read_call_file(x)
  }
  if (is.data.frame(x)) {
    pairs <- table_pairs(x, what)
    twice <- anyDuplicated(pairs[c("cell", "guide")])
    if (twice > 0L) {
      abort(
        "format", "The pair of cell ", quote_names(pairs$cell[twice]), " and guide ", quote_names(pairs$guide[twice]),
        " stands more than once in ", what, "."
      )
    }
    if (name == "") name <- paste("set", at)
    return(list(name = name, cells = unique(pairs$cell), cell = pairs$cell, guide = pairs$guide, umi = pairs$umi))
  }
  if (!inherits(x, "guide_calls")) x <- attached_calls(x)
  called <- called_pairs(x)
  list(
    name = if (name == "") x$model else name, cells = x$cells$cell_barcode, cell = x$cells$cell_barcode[called$cell],
    guide = rownames(x$counts)[called$guide], umi = called$umi, counts = x$counts
  )
}

read_call_file <- function(path) {
  path <- path.expand(path)
  if (!file.exists(path) || dir.exists(path)) abort(
    "file", "There is no file ", quote_names(path), ". Give the path of a CSV file of calls."
  )
  # Names are text, and may look like numbers.
  tryCatch(
    utils::read.csv(path, colClasses = "character", check.names = FALSE, encoding = "UTF-8", na.strings = ""),
    error = function(e) abort("format", quote_names(path), " is no CSV file: ", conditionMessage(e), ".")
  )
}

# The columns that tell cell, guide and UMIs, by who writes them.
pair_tables <- list(
  c(cell = "cell_barcode", guide = "guide_id", umi = "umi_count"),
  c(cell = "cell", guide = "gRNA", umi = "UMI_counts"),
  c(cell = "cell_barcode", guide = "feature_call", umi = "num_umis")
)

table_pairs <- function(table, what) {
  for (columns in pair_tables) {
    if (!all(columns[c("cell", "guide")] %in% names(table))) next
    cell <- as.character(table[[columns[["cell"]]]])
    guide <- as.character(table[[columns[["guide"]]]])
    umi <- if (columns[["umi"]] %in% names(table)) as.character(table[[columns[["umi"]]]]) else rep(NA_character_, length(cell))
    # $cells of a guide_calls has rows without a guide.
    keep <- !is.na(guide) & guide != ""
    cell <- cell[keep]
    guide <- guide[keep]
    umi <- umi[keep]
    if (columns[["guide"]] == "feature_call") {
      guides <- strsplit(guide, "|", fixed = TRUE)
      umis <- strsplit(umi, "|", fixed = TRUE)
      cell <- rep(cell, lengths(guides))
      umi <- if (identical(lengths(guides), lengths(umis))) unlist(umis) else rep(NA_character_, length(cell))
      guide <- as.character(unlist(guides))
    }
    bad <- which(is.na(cell) | cell == "")
    if (length(bad) > 0L) abort(
      "format", "A pair of ", what, " has no cell, that with the guide ", quote_names(guide[bad[1L]]), "."
    )
    return(data.frame(cell = cell, guide = guide, umi = suppressWarnings(as.integer(umi)), stringsAsFactors = FALSE))
  }
  abort(
    "format", "The columns of ", what, " (", if (length(table) > 0L) quote_names(names(table), 8L) else "none",
    ") are not those of calls.\n",
    "  Give cell_barcode and guide_id; crispat's cell and gRNA; or Cell Ranger's cell_barcode and feature_call."
  )
}

# Named sets of call_set() -> calls_comparison. A pair is one number, so that sets of millions are matched at once.
compare_sets <- function(sets, rename, min_match) {
  names <- names(sets)
  twice <- anyDuplicated(names)
  if (twice > 0L) abort("argument", "Two sets are named ", quote_names(names[twice]), ". Give each a name of its own.")
  cells <- sets[[1L]]$cells
  guides <- unique(unlist(lapply(sets, function(set) if (is.null(set$counts)) set$guide else rownames(set$counts))))
  pair <- vector("list", length(sets))
  for (k in seq_along(sets)) {
    own <- sets[[k]]$cells
    as_first <- own
    if (k > 1L) {
      as_first <- names_in_first(own, cells, names[c(k, 1L)], rename, min_match)
      refuse_no_guide(sets[[k]], sets[seq_len(k - 1L)], names, k)
    }
    cells <- c(cells, setdiff(as_first, cells))
    sets[[k]]$cells <- as_first
    pair[[k]] <- (match(as_first, cells)[match(sets[[k]]$cell, own)] - 1) * length(guides) + match(sets[[k]]$guide, guides)
  }
  any <- sort(unique(unlist(pair)))
  called <- vapply(pair, function(p) any %in% p, logical(length(any)))
  called <- matrix(called, length(any), dimnames = list(NULL, names))
  cell <- (any - 1) %/% length(guides) + 1
  guide <- (any - 1) %% length(guides) + 1
  n_sets <- rowSums(called)

  structure(
    list(
      sets = data.frame(
        set = names, n_pairs = unname(as.integer(colSums(called))),
        n_cells = vapply(names, function(s) length(unique(cell[called[, s]])), 0L, USE.NAMES = FALSE),
        n_guides = vapply(names, function(s) length(unique(guide[called[, s]])), 0L, USE.NAMES = FALSE),
        stringsAsFactors = FALSE
      ),
      jaccard = jaccard_of(called),
      pairs = two_by_two(called, cell),
      guides = agreement_by(guide, guides, called, n_sets, "guide_id"),
      cells = agreement_by(cell, cells, called, n_sets, "cell_barcode"),
      differ = differing_pairs(which(n_sets < length(sets)), any, called, cell, guide, cells, guides, sets, pair)
    ),
    class = "calls_comparison"
  )
}

# The names of `own` cells in the first set; those that are not there keep theirs.
names_in_first <- function(own, cells, names, rename, min_match) {
  own <- renamed_cells(own, rename)
  if (length(own) == 0L || length(cells) == 0L) return(own)
  matched <- match_cells(
    own, cells, paste("the set", quote_names(names[1L])), paste("the set", quote_names(names[2L])), "calls for the same cells",
    min_match
  )
  if (matched$how != "") {
    say_choice(
      "Cells of the set ", quote_names(names[1L]), " in ", quote_names(names[2L]), ": ", big(sum(!is.na(matched$at))), " of ",
      big(length(own)), matched$how, "."
    )
  }
  ifelse(is.na(matched$at), own, cells[matched$at])
}

refuse_no_guide <- function(set, before, names, k) {
  guides_of <- function(set) if (is.null(set$counts)) set$guide else rownames(set$counts)
  theirs <- unlist(lapply(before, guides_of))
  ours <- guides_of(set)
  if (length(ours) == 0L || length(theirs) == 0L || any(ours %in% theirs)) return(invisible())
  abort(
    "names", "The set ", quote_names(names[k]), " has no guide of the sets before it: it has ", quote_names(unique(ours), 3L),
    ", those ",
    quote_names(unique(theirs), 3L), "."
  )
}

jaccard_of <- function(called) {
  both <- crossprod(called)
  n <- diag(both)
  both / (outer(n, n, `+`) - both)
}

two_by_two <- function(called, cell) {
  names <- colnames(called)
  two <- utils::combn(length(names), 2L)
  both <- crossprod(called)
  jaccard <- jaccard_of(called)
  data.frame(
    a = names[two[1L, ]], b = names[two[2L, ]], n_a = as.integer(diag(both)[two[1L, ]]),
    n_b = as.integer(diag(both)[two[2L, ]]),
    n_both = as.integer(both[t(two)]), jaccard = jaccard[t(two)],
    n_cells_differ = apply(two, 2L, function(k) length(unique(cell[called[, k[1L]] != called[, k[2L]]]))),
    stringsAsFactors = FALSE
  )
}

# The pairs counted by guide or by cell: by each set, by all, by any.
agreement_by <- function(of, names, called, n_sets, column) {
  there <- sort(unique(of))
  at <- match(of, there)
  count <- function(keep) tabulate(at[keep], length(there))
  by_set <- lapply(stats::setNames(nm = colnames(called)), function(set) count(called[, set]))
  rows <- data.frame(
    names[there], by_set, count(n_sets == ncol(called)), count(rep(TRUE, length(of))), check.names = FALSE,
    stringsAsFactors = FALSE
  )
  names(rows) <- c(column, colnames(called), "n_all", "n_any")
  if (column == "cell_barcode") {
    rows$agree <- rows$n_all == rows$n_any
    return(rows)
  }
  rows$jaccard <- rows$n_all / rows$n_any
  rows <- rows[order(rows$jaccard), ]
  rownames(rows) <- NULL
  rows
}

differing_pairs <- function(rows, any, called, cell, guide, cells, guides, sets, pair) {
  umi <- cell_umis <- rep(NA_integer_, length(rows))
  for (k in seq_along(sets)) {
    set <- sets[[k]]
    if (!is.null(set$counts)) {
      at_guide <- match(guides[guide[rows]], rownames(set$counts))
      at_cell <- match(cells[cell[rows]], set$cells)
      known <- which(is.na(umi) & !is.na(at_guide) & !is.na(at_cell))
      places <- (at_cell[known] - 1) * nrow(set$counts) + at_guide[known] - 1
      found <- match(places, matrix_places(set$counts))
      umi[known] <- as.integer(ifelse(is.na(found), 0, set$counts@x[found]))
      cell_umis[known] <- as.integer(Matrix::colSums(set$counts)[at_cell[known]])
    } else {
      unknown <- which(is.na(umi))
      umi[unknown] <- set$umi[match(any[rows[unknown]], pair[[k]])]
    }
  }
  data.frame(
    cell_barcode = cells[cell[rows]], guide_id = guides[guide[rows]], umi_count = umi, cell_umis = cell_umis,
    called[rows, , drop = FALSE],
    row.names = NULL, check.names = FALSE, stringsAsFactors = FALSE
  )
}

#' @export
print.calls_comparison <- function(x, ...) {
  cat("<calls_comparison> ", nrow(x$sets), " sets of calls, ", count_of(nrow(x$cells), "cell"), " with a call\n\n", sep = "")
  print(x$sets, row.names = FALSE, right = TRUE)
  cat("\nJaccard index (pairs called by both, of those called by either):\n")
  print(round(x$jaccard, 3L))
  cat(
    "\n", count_of(sum(!x$cells$agree), "cell"), if (sum(!x$cells$agree) == 1L) " differs, " else " differ, ",
    count_of(nrow(x$differ), "pair"), " not called by all\n",
    "$sets, $jaccard, $pairs, $guides, $cells, $differ; plot_model_agreement()\n",
    sep = ""
  )
  invisible(x)
}

#' Draw the agreement of models or of sets of calls
#'
#' The Jaccard indices of a comparison as a heat map with numbers.
#'
#' @param compared A `calls_comparison` of [compare_models()] or [compare_calls()].
#' @return A ggplot. Sets are ordered so that like ones are neighbours; their names carry the number of pairs called.
#' @section Errors:
#'   `kaichi_error_argument` for another object; `kaichi_error_package` without ggplot2.
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' compared <- compare_models(path, c("umi", "max", "gauss", "poisson_gauss"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_model_agreement(compared)
#' @export
plot_model_agreement <- function(compared) {
  need_package("ggplot2", "to draw pictures")
  if (!inherits(compared, "calls_comparison")) {
    abort(
      "argument", "`compared` must be the result of compare_models() or compare_calls(), not ", describe_class(compared), "."
    )
  }
  jaccard <- compared$jaccard
  # Sets without any call agree with none.
  distance <- stats::as.dist(1 - ifelse(is.nan(jaccard), 0, jaccard))
  sets <- rownames(jaccard)[if (nrow(jaccard) > 2L) stats::hclust(distance, "average")$order else 1:2]
  label <- sprintf("%s (%s)", short_name(sets), big(compared$sets$n_pairs[match(sets, compared$sets$set)]))
  label <- make.unique(label, sep = " ")
  cells <- expand.grid(b = seq_along(sets), a = seq_along(sets))
  cells$jaccard <- jaccard[cbind(match(sets[cells$a], rownames(jaccard)), match(sets[cells$b], rownames(jaccard)))]
  cells$text <- ifelse(is.nan(cells$jaccard), "-", sub("^0", "", sprintf("%.2f", cells$jaccard)))
  cells$ink <- ifelse(!is.nan(cells$jaccard) & cells$jaccard > 0.6, "black", "white")
  x <- factor(label[cells$b], label)
  y <- factor(label[cells$a], rev(label))
  ggplot2::ggplot(cbind(cells, x = x, y = y), ggplot2::aes(.data$x, .data$y, fill = .data$jaccard)) +
    ggplot2::geom_tile(colour = "white", linewidth = 0.4) +
    (if (length(sets) <= 25L) {
      ggplot2::geom_text(ggplot2::aes(label = .data$text), colour = cells$ink, size = if (length(sets) <= 8L) 3.6 else 2.6)
    }) +
    ggplot2::scale_fill_viridis_c(name = "Jaccard index", limits = c(0, 1), labels = big_labels, na.value = "grey50") +
    ggplot2::coord_equal() +
    ggplot2::labs(
      x = NULL, y = NULL, title = "Agreement of calls",
      subtitle = "pairs called by both, of those called by either; in brackets: pairs called"
    ) +
    picture_theme() +
    ggplot2::theme(
      legend.position = "right", legend.title = ggplot2::element_text(), panel.grid = ggplot2::element_blank(),
      axis.text.x = ggplot2::element_text(angle = 45, hjust = 1)
    )
}
