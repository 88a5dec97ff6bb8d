#' Decide which guides each cell carries
#'
#' Turns the scores of [score_guides()] into calls. A new threshold needs no new fit.
#'
#' One rule decides: `min_confidence`, `quantile` or `fdr`. Two of them are an error; without any it is
#' `min_confidence = 0.9`.
#'
#' @param scores A `guide_scores` of [score_guides()].
#' @param min_confidence Calls have a score of at least this. One number, 0 to 1. A pair whose score is 0 is never called.
#'   The default holds only if neither `quantile` nor `fdr` is given. [assign_guides()] takes the model's own default instead
#'   (`cut` of [guide_models()]).
#' @param min_umi Pairs with fewer UMIs are not called, whatever the model, and do not count for `fdr`. One number, 0 or more.
#' @param quantile Model `quantiles` only, instead of `min_confidence`: per guide, this share (0 to 1) of the cells that have
#'   it are called, rounded down, the largest shares of the cell's guide UMIs first.
#' @param fdr Instead of `min_confidence`: the largest set of pairs is called whose expected share of false pairs, the mean of
#'   one less the posterior over the pairs called, is at most this. One number, 0 to 1. Pairs of equal posterior are called or
#'   left together. For models whose score is a posterior (`confidence` of [guide_models()]); the share holds as far as the
#'   posteriors of the model do.
#' @param fdr_by `"overall"`: `fdr` holds over the called pairs of all guides; `"guide"`: over those of each guide.
#' @return A `guide_calls`, see [assign_guides()].
#' @seealso [score_guides()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' scores <- score_guides(path, model = "poisson")
#' calls <- decide_guides(scores, min_confidence = 0.95, min_umi = 3)
#' head(calls$cells)
#'
#' # At most one false pair in a hundred is expected.
#' decide_guides(scores, fdr = 0.01)
#' @export
decide_guides <- function(scores, min_confidence = 0.9, min_umi = 0, quantile = NULL, fdr = NULL,
                          fdr_by = c("overall", "guide")) {
  if (!inherits(scores, "guide_scores")) {
    abort("argument", "`scores` must be the result of score_guides(), not ", describe_class(scores), ".")
  }
  info <- find_model(scores$model)
  check_one_rule(min_confidence = !missing(min_confidence), quantile = !is.null(quantile), fdr = !is.null(fdr))
  if (!is.null(fdr)) {
    rule <- check_fdr_by(fdr_by)
    decide_scores(scores, info, rule, check_fdr(fdr, info), min_umi)
  } else if (!missing(fdr_by)) {
    abort("argument", "`fdr_by` means nothing without `fdr`: give that too, for example fdr = 0.05.")
  } else if (!is.null(quantile)) {
    refuse_quantile(info)
    decide_scores(scores, info, "quantile", check_number(quantile, "quantile", 0, 1), min_umi)
  } else {
    decide_scores(scores, info, "min_confidence", check_number(min_confidence, "min_confidence", 0, 1), min_umi)
  }
}

# `...` says of each rule whether it was given.
check_one_rule <- function(...) {
  given <- c(...)
  if (sum(given) < 2L) return(invisible())
  abort(
    "argument", "Give one of ", paste0("`", names(given), "`", collapse = ", "), ", not ",
    paste0("`", names(given)[given], "`", collapse = " and "), "."
  )
}

check_fdr <- function(fdr, info) {
  if (!has_posterior(info)) {
    why <- if (info$rule == "single_stage") {
      paste0("the model \"", info$model, "\" decides by itself.")
    } else {
      paste0("those of the model \"", info$model, "\" are not (", info$confidence, "). Give `", info$rule, "`.")
    }
    abort("argument", "`fdr` needs scores that are posterior probabilities; ", why)
  }
  check_number(fdr, "fdr", 0, 1)
}

# The rule in Rust's words.
check_fdr_by <- function(fdr_by) {
  ways <- c("overall", "guide")
  if (identical(fdr_by, ways)) fdr_by <- "overall"
  if (!is.character(fdr_by) || length(fdr_by) != 1L || !fdr_by %in% ways) {
    abort("argument", "`fdr_by` must be \"overall\" or \"guide\", not ", describe(fdr_by), ".")
  }
  if (fdr_by == "guide") "fdr_per_guide" else "fdr"
}

has_posterior <- function(info) info$confidence == "posterior" && info$rule != "single_stage"

describe_class <- function(x) paste0("an object of class ", quote_names(class(x)))

refuse_quantile <- function(info) {
  if (info$rule != "quantile") {
    abort("argument", "`quantile` is for the model \"quantiles\"; \"", info$model, "\" is decided by ",
          if (info$rule == "single_stage") "itself." else "`min_confidence`.")
  }
}

# guide_scores -> guide_calls. `rule` is one of rust_decide(), `cut` its value.
decide_scores <- function(scores, info, rule, cut, min_umi, n_jobs = NULL) {
  min_umi <- check_number(min_umi, "min_umi", 0, Inf)
  counts <- scores$counts
  fits <- scores$fits
  per_guide <- "guide_id" %in% names(fits)
  decided <- rust_decide(
    counts, scores$posterior@x, rule, cut, min_umi, has_posterior(info), if (per_guide) fits$status else character(), n_jobs
  )
  assigned <- sparse_of_rust(decided$p, decided$i, rep(1, length(decided$i)), dim(counts), dimnames(counts))
  if (per_guide) fits[names(decided$guides)] <- decided$guides
  calls <- structure(
    list(
      cells = as_data_frame(decided$cells),
      pairs = as_data_frame(decided$pairs),
      assigned = assigned,
      counts = counts,
      fits = fits,
      model = scores$model,
      params = c(scores$params, rule_params(rule, cut, min_umi)),
      version = scores$version
    ),
    class = "guide_calls"
  )
  carry_guides(calls, scores$guides)
}

# How calls were decided, for the params of a guide_calls.
rule_params <- function(rule, cut, min_umi) {
  said <- stats::setNames(list(cut), sub("_per_guide", "", rule, fixed = TRUE))
  if (names(said) == "fdr") said$fdr_by <- if (rule == "fdr") "overall" else "guide"
  c(said, list(min_umi = min_umi))
}

# Columns of one length -> data.frame; data.frame() would look at every value.
as_data_frame <- function(columns) {
  structure(columns, class = "data.frame", row.names = .set_row_names(length(columns[[1L]])))
}
