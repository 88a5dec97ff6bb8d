#' Call constructs from guide calls
#'
#' Joins the calls of guides to calls of what they belong to: the vectors of a dual-guide library, or the targets of a library
#' with several guides per target. One call per cell and construct; dual-guide vectors that recombined are flagged.
#'
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()]. Of a SingleCellExperiment or Seurat object `x`:
#'   `decide_guides(score_guides(x))`; the result goes into it by barcode, as in
#'   `x$construct <- cells$construct[match(colnames(x), cells$cell_barcode)]` with `cells` of the result.
#' @param guides The guide table of the library, see [read_guide_table()]: a data.frame or the path of a CSV or TSV, with one row
#'   per guide, the column `guide_id` and the column that `construct` names, both chr (or factor; numbers are read as names).
#'   NULL is the table that `calls` carries as `calls$guides`. Every guide of `calls` must be in it. It may have
#'   more guides than `calls`, in any order.
#' @param construct The name of the column of `guides` with the construct of each guide, as `"construct"` or `"target"`.
#' @param min_guides A construct is called in a cell that has at least this many of its guides called. A whole number, 1 or
#'   more. A construct with fewer guides than this is never called; a message says which.
#'
#' @return An object of class `construct_calls`, a list with
#'   \describe{
#'     \item{cells}{data.frame, one row per cell in the order of `calls$cells`: `cell_barcode` chr; `construct` chr, the called
#'       construct with the highest confidence, then the most UMIs, then the earliest in `guides`, NA if none;
#'       `n_guides_of_construct` int, its called guides, NA if none; `umi_count` int, their UMIs, NA if none; `confidence` dbl,
#'       0 to 1, as in `pairs`, NA if none; `n_constructs` int, constructs called; `is_unassigned` lgl, no construct called;
#'       `is_multi_construct` lgl, more than one construct called; `is_recombined` lgl, see below.}
#'     \item{pairs}{data.frame, one row per cell and called construct, in the order of the cells, then of the constructs:
#'       `cell_barcode` chr; `construct` chr; `n_guides` int, called guides of the construct; `n_guides_total` int, guides of
#'       the construct in `guides` that are also in `calls`: a guide that was not counted cannot be missed; `complete` lgl,
#'       `n_guides == n_guides_total`; `umi_count` int, UMIs of its called guides together; `confidence` dbl, 0 to 1,
#'       1 - prod(1 - p) over the scores p of its called guides: the probability that at least one of them is right, if they err
#'       independently.}
#'     \item{assigned}{dgCMatrix, constructs x cells, 1 where called. All constructs with a guide in `calls`, in the order of
#'       `guides`.}
#'     \item{model, params, version}{As in `calls`; `params` has `construct` and `min_guides` besides.}
#'   }
#'   `as.data.frame()` of it is `$cells`.
#' @section Recombined vectors:
#'   Lentiviral vectors with two guides recombine: a cell gets A_1 with B_2, neither A nor B. `is_recombined` is TRUE for a cell
#'   with called guides of two or more constructs of which none is complete. All called guides of the cell count here, whatever
#'   `min_guides`: with `min_guides = 2` such a cell of a dual-guide library is unassigned and still flagged.
#'
#'   Not flagged: a cell that also carries a complete construct; a recombined vector of which only one guide was called (one
#'   construct, not complete); constructs of one guide, which are always complete. Flagged, though nothing recombined: a cell
#'   with two intact vectors of which each lost a guide. Recombined cells have several constructs, so `is_multi_construct` is
#'   TRUE unless `min_guides` drops them. The cells to analyse as A are those with `n_constructs == 1`, with `min_guides = 2` if
#'   one guide of a vector is not enough.
#' @section Targets:
#'   With `construct = "target"` the same joins separate guides of one target: two guides of a target in a cell are one call.
#'   `complete` and `is_recombined` then carry no meaning, as no vector brings all guides of a target.
#'   Give all non-targeting guides one label, as `"NT"`: a cell with two of them has one construct `"NT"`, and a cell with one
#'   of them and a guide of another target has two constructs. That label is the `nt.class.name` of Seurat's Mixscape,
#'   `construct` its `labels`; leave out cells that have not exactly one construct.
#' @section Names:
#'   A guide of `calls` is found in `guides` by its name; else by the name that Seurat gives a feature, with `_` and `|` turned
#'   into `-`, among the rows that no guide has by its own name. Two such rows for one guide are an error.
#' @section Errors:
#'   `kaichi_error_argument` for `calls`, `guides`, a column or `min_guides` that is not as said here. `kaichi_error_names` for
#'   a guide of `calls` that is not in `guides` or is there under two names, and for names in `guides` that are missing, empty
#'   or (`guide_id`) duplicated.
#' @seealso [assign_guides()]
#' @examples
#' sim <- simulate_guides("dual_guide", n_cells = 500, n_guides = 20)
#' calls <- assign_guides(sim$counts)
#' constructs <- call_constructs(calls, sim$guides)
#' constructs
#' head(constructs$cells)
#'
#' # Both guides of a vector, or no call.
#' call_constructs(calls, sim$guides, min_guides = 2)
#' @export
call_constructs <- function(calls, guides = NULL, construct = "construct", min_guides = 1) {
  if (!inherits(calls, "guide_calls")) {
    abort(
      "argument", "`calls` must be a guide_calls, not ", describe_class(calls), ". assign_guides() returns one for a ",
      "matrix or a file; decide_guides(score_guides(x)) for a SingleCellExperiment or Seurat object too."
    )
  }
  min_guides <- check_number(min_guides, "min_guides", 1, Inf, whole = TRUE)
  if (is.null(guides)) guides <- calls$guides
  guides <- named_guide_table(guides)
  table <- check_guide_table(guides, construct)
  row <- match_guides(rownames(calls$counts), table$guide_id)
  names <- unique(table$construct[sort(row)])
  construct_of <- match(table$construct[row], names)
  n_guides_total <- tabulate(construct_of, length(names))
  check_min_guides(min_guides, names, n_guides_total)

  barcodes <- calls$cells$cell_barcode
  # One entry per cell and construct with a called guide, by cell, then construct; the same pattern each time.
  pair_construct <- construct_of[match(calls$pairs$guide_id, rownames(calls$counts))]
  pair_cell <- match(calls$pairs$cell_barcode, barcodes)
  joined <- function(x) {
    Matrix::sparseMatrix(
      pair_construct, pair_cell,
      x = as.double(x), dims = c(length(names), length(barcodes)), dimnames = list(names, barcodes)
    )
  }
  assigned <- joined(rep(1, length(pair_cell)))
  cell <- rep(seq_along(barcodes), diff(assigned@p))
  of <- assigned@i + 1L
  n_guides <- as.integer(assigned@x)
  complete <- n_guides == n_guides_total[of]
  umi_count <- as.integer(joined(calls$pairs$umi_count)@x)
  # As logarithms: small probabilities stay exact.
  confidence <- -expm1(joined(log1p(-calls$pairs$assignment_confidence))@x)
  is_recombined <- tabulate(cell, length(barcodes)) > 1L & tabulate(cell[complete], length(barcodes)) == 0L

  called <- which(n_guides >= min_guides)
  n_constructs <- tabulate(cell[called], length(barcodes))
  best <- called[order(cell[called], -confidence[called], -umi_count[called], of[called], method = "radix")]
  best <- best[match(seq_along(barcodes), cell[best])]
  structure(
    list(
      cells = data.frame(
        cell_barcode = barcodes,
        construct = names[of[best]],
        n_guides_of_construct = n_guides[best],
        umi_count = umi_count[best],
        confidence = confidence[best],
        n_constructs = n_constructs,
        is_unassigned = n_constructs == 0L,
        is_multi_construct = n_constructs > 1L,
        is_recombined = is_recombined,
        stringsAsFactors = FALSE
      ),
      pairs = data.frame(
        cell_barcode = barcodes[cell[called]],
        construct = names[of[called]],
        n_guides = n_guides[called],
        n_guides_total = n_guides_total[of[called]],
        complete = complete[called],
        umi_count = umi_count[called],
        confidence = confidence[called],
        stringsAsFactors = FALSE
      ),
      assigned = methods::new(
        "dgCMatrix",
        i = assigned@i[called], p = c(0L, cumsum(n_constructs)), x = rep(1, length(called)), Dim = dim(assigned),
        Dimnames = dimnames(assigned)
      ),
      model = calls$model,
      params = c(calls$params, list(construct = construct, min_guides = min_guides)),
      version = calls$version
    ),
    class = "construct_calls"
  )
}

# The columns guide_id and construct of the user's table, as plain names.
check_guide_table <- function(guides, construct) {
  if (!is.data.frame(guides)) {
    abort(
      "argument", "`guides` must be a data.frame with the columns guide_id and construct, not ", describe_class(guides), ".",
      if (inherits(guides, "DataFrame")) " as.data.frame() makes it one."
    )
  }
  if (!is.character(construct) || length(construct) != 1L || is.na(construct)) {
    abort("argument", "`construct` must be the name of one column of `guides`, not ", describe(construct), ".")
  }
  column <- function(name, hint) {
    if (!name %in% names(guides)) {
      abort(
        "argument", "`guides` has no column \"", name, "\"", hint, ". Its columns: ",
        if (length(guides) > 0L) quote_names(names(guides), 10L) else "none", "."
      )
    }
    value <- guides[[name]]
    if (!(is.factor(value) || is.character(value) || is.numeric(value))) {
      abort("argument", "The column \"", name, "\" of `guides` must hold names, not ", describe_class(value), ".")
    }
    value <- as.character(value)
    bad <- which(is.na(value) | value == "")
    if (length(bad) > 0L) {
      abort(
        "names", "The column \"", name, "\" of `guides` has ", count_of(length(bad), "missing or empty name"),
        ", first in row ", bad[1L], ". Fill the column, or drop the rows of guides that were not counted."
      )
    }
    value
  }
  guide_id <- column("guide_id", "")
  value <- column(construct, "; `construct` names the column with the construct of each guide")
  twice <- unique(guide_id[duplicated(guide_id)])
  if (length(twice) > 0L) {
    abort(
      "names", "`guides` has more than one row for ", count_of(length(twice), "guide"), ": ", quote_names(twice),
      ". A guide belongs to one construct: keep one row of each."
    )
  }
  list(guide_id = guide_id, construct = value)
}

# The row of the guide table for each guide of the calls: by name, then by the name that Seurat made of it.
match_guides <- function(called, table, of = "`calls`") {
  row <- match(called, table)
  free <- setdiff(seq_along(table), row)
  as_seurat <- chartr("_|", "--", table[free])
  missed <- is.na(row)
  two <- missed & called %in% as_seurat[duplicated(as_seurat)]
  if (any(two)) {
    guide <- called[two][1L]
    abort(
      "names", "The guide \"", guide, "\" of ", of, " could be ", quote_names(table[free][as_seurat == guide]), " of `guides`: ",
      "Seurat turns _ and | into -. Give `guides` the names that ", sub("`calls`", "the calls", of, fixed = TRUE), " have."
    )
  }
  row[missed] <- free[match(called[missed], as_seurat)]
  missed <- is.na(row)
  if (all(missed)) {
    abort(
      "names", "No guide of ", of, " is in `guides$guide_id`. ", if (of == "`calls`") "The calls" else "They", " have ", quote_names(called, 3L), "; the table has ",
      if (length(table) > 0L) quote_names(table, 3L) else "no rows", "."
    )
  }
  if (any(missed)) {
    abort(
      "names", count_of(sum(missed), "guide"), " of ", of, " not in `guides$guide_id`: ", quote_names(called[missed]),
      ". Add them to the table; a guide by itself can be its own construct."
    )
  }
  row
}

check_min_guides <- function(min_guides, names, n_guides_total) {
  small <- n_guides_total < min_guides
  if (all(small)) {
    abort(
      "argument", "`min_guides` is ", format(min_guides), " and no construct has more than ", max(n_guides_total),
      " of its guides in `calls`: nothing could be called."
    )
  }
  if (any(small)) {
    message(
      "Never called, with fewer than `min_guides` = ", format(min_guides), " guides: ", count_of(sum(small), "construct"), ", ",
      quote_names(names[small]), "."
    )
  }
}

# "1 guide", "1,200 guides".
count_of <- function(n, what) paste0(big(n), " ", what, if (n != 1L) "s")

#' @export
print.construct_calls <- function(x, ...) {
  cells <- x$cells
  n <- nrow(cells)
  share <- function(k) sprintf("%s (%.1f %%)", big(k), 100 * k / n)
  several <- sum(cells$is_multi_construct)
  none <- sum(cells$is_unassigned)
  cat(
    "<construct_calls> ", big(nrow(x$assigned)), " constructs (", x$params$construct, ") x ", big(n), " cells, model ", x$model,
    rule_words(x$params), ", min_guides ", format(x$params$min_guides), "\n",
    "  one construct:      ", share(n - several - none), "\n",
    "  several constructs: ", share(several), "\n",
    "  unassigned:         ", share(none), "\n",
    "  recombined:         ", share(sum(cells$is_recombined)), "\n",
    "  pairs called:       ", big(nrow(x$pairs)), ", ", big(sum(x$pairs$complete)), " with every guide of the construct\n",
    "  $cells, $pairs, $assigned\n",
    sep = ""
  )
  invisible(x)
}

#' @export
as.data.frame.construct_calls <- function(x, row.names = NULL, optional = FALSE, ...) {
  cells <- x$cells
  if (!is.null(row.names)) rownames(cells) <- row.names
  cells
}
