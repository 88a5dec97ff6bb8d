#' Decide which guides each cell carries
#'
#' Turns the scores of [score_guides()] into calls. A new threshold needs no new fit.
#'
#' @param scores A `guide_scores` of [score_guides()].
#' @param min_confidence Calls have a score of at least this. One number, 0 to 1. A pair whose score is 0 is never called.
#'   [assign_guides()] takes the model's own default instead: 0.8, or 0.5 for some (`cut` of [guide_models()]).
#' @param min_umi Calls with fewer UMIs are dropped, whatever the model. One number, 0 or more.
#' @param quantile Model `quantiles` only, instead of `min_confidence`: per guide, this share (0 to 1) of the cells that have
#'   it are called, rounded down, the largest shares of the cell's guide UMIs first. NULL: use `min_confidence`.
#' @return A `guide_calls`, see [assign_guides()].
#' @seealso [score_guides()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' scores <- score_guides(path, model = "poisson")
#' calls <- decide_guides(scores, min_confidence = 0.95, min_umi = 3)
#' head(calls$cells)
#' @export
decide_guides <- function(scores, min_confidence = 0.9, min_umi = 0, quantile = NULL) {
  if (!inherits(scores, "guide_scores")) {
    abort("argument", "`scores` must be the result of score_guides(), not ", describe_class(scores), ".")
  }
  info <- find_model(scores$model)
  if (is.null(quantile)) {
    decide_scores(scores, "min_confidence", check_number(min_confidence, "min_confidence", 0, 1), min_umi)
  } else {
    if (!missing(min_confidence)) abort("argument", "Give `min_confidence` or `quantile`, not both.")
    refuse_quantile(info)
    decide_scores(scores, "quantile", check_number(quantile, "quantile", 0, 1), min_umi)
  }
}

describe_class <- function(x) paste0("an object of class ", quote_names(class(x)))

refuse_quantile <- function(info) {
  if (info$rule != "quantile") {
    abort("argument", "`quantile` is for the model \"quantiles\"; \"", info$model, "\" is decided by ",
          if (info$rule == "single_stage") "itself." else "`min_confidence`.")
  }
}

# guide_scores -> guide_calls. `rule` is "min_confidence" or "quantile", `cut` its value.
decide_scores <- function(scores, rule, cut, min_umi) {
  min_umi <- check_number(min_umi, "min_umi", 0, Inf)
  counts <- scores$counts
  score <- scores$posterior@x
  decided <- rust_decide(counts, score, rule, cut, min_umi)
  guides <- rownames(counts)
  cells <- colnames(counts)

  best <- decided$best
  n_guides <- diff(decided$p)
  unassigned <- is.na(best)
  pairs <- decided$pairs
  assigned <- methods::new(
    "dgCMatrix",
    i = counts@i[pairs], p = decided$p, x = rep(1, length(pairs)), Dim = dim(counts), Dimnames = dimnames(counts)
  )
  fits <- scores$fits
  if ("guide_id" %in% names(fits)) {
    guide_of_pair <- factor(counts@i[pairs], levels = seq_along(guides) - 1L)
    fits$n_cells_called <- tabulate(guide_of_pair, length(guides))
    least <- rep(NA_integer_, length(guides))
    smallest <- vapply(split(counts@x[pairs], guide_of_pair, drop = TRUE), min, 0)
    least[as.integer(names(smallest)) + 1L] <- as.integer(smallest)
    fits$min_umi_called <- least
  }
  structure(
    list(
      cells = data.frame(
        cell_barcode = cells,
        guide_id = guides[counts@i[best] + 1L],
        umi_count = as.integer(counts@x[best]),
        assignment_confidence = score[best],
        is_unassigned = unassigned,
        is_multi_infected = n_guides > 1L,
        n_guides_detected = n_guides,
        stringsAsFactors = FALSE
      ),
      pairs = data.frame(
        cell_barcode = rep(cells, n_guides),
        guide_id = guides[counts@i[pairs] + 1L],
        umi_count = as.integer(counts@x[pairs]),
        assignment_confidence = score[pairs],
        stringsAsFactors = FALSE
      ),
      assigned = assigned,
      counts = counts,
      fits = fits,
      model = scores$model,
      params = c(scores$params, stats::setNames(list(cut), rule), list(min_umi = min_umi)),
      version = scores$version
    ),
    class = "guide_calls"
  )
}
