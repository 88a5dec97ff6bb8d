#' Decide which guides each cell carries
#'
#' Turns the scores of [score_guides()] into calls. A new threshold needs no new fit.
#'
#' One rule decides: `min_confidence`, `min_log_odds`, `quantile` or `fdr`. Two of them are an error. Without any, the model's own
#' default decides (`rule` and `cut` of [guide_models()]), as in [assign_guides()]. kaichi for Python has `min_confidence = 0.9` there:
#' give that for its calls.
#'
#' @param scores A `guide_scores` of [score_guides()].
#' @param min_confidence Calls have a score of at least this. One number, 0 to 1. A pair whose score is 0 is never called.
#'   If `NULL` and no other rule is given, the model's default. 1 calls the pairs whose posterior rounds to 1; for a stricter cut
#'   give `min_log_odds`.
#' @param min_umi Pairs with fewer UMIs are not called, whatever the model, and do not count for `fdr`. One number, 0 or more.
#' @param quantile Model `quantiles` only, instead of `min_confidence`: per guide, this share (0 to 1) of the cells that have
#'   it are called, rounded down, the largest shares of the cell's guide UMIs first.
#' @param fdr Instead of `min_confidence`: the largest set of pairs is called whose expected share of false pairs, the mean of
#'   one less the posterior over the pairs called, is at most this. One number, 0 to 1. Pairs are ranked, and their probabilities of
#'   being false are added up, by their log odds: rates such as 1e-8 tell apart posteriors that round to 1, and 0 calls next to
#'   nothing. Pairs of equal log odds are called or left together. For models whose score is a posterior (`confidence` of [guide_models()]); the share holds as far as the
#'   posteriors of the model do.
#' @param fdr_by `"overall"`: `fdr` holds over the called pairs of all guides; `"guide"`: over those of each guide.
#' @param min_log_odds Instead of `min_confidence`, for models whose score is a posterior p: calls have log odds, ln(p / (1 - p)), of
#'   at least this. One finite number: 0 is a posterior of 0.5, 4.6 one of 0.99, 18.4 one of 1 - 1e-8.
#' @param log_odds Whether `$pairs` gets `log_odds`, the log odds of each call, as its last column: TRUE or FALSE. Needs a model
#'   whose score is a posterior.
#' @return A `guide_calls`, see [assign_guides()].
#' @section Scores without log odds:
#'   Scores that an earlier version of kaichi made have no `$log_odds`. `min_log_odds` and `fdr` then go by the posteriors, those that
#'   round to 1 are all the same, and a message of the class `kaichi_message_choice` says so.
#' @seealso [score_guides()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' scores <- score_guides(path, model = "poisson")
#' calls <- decide_guides(scores, min_confidence = 0.95, min_umi = 3)
#' head(calls$cells)
#'
#' # At most one false pair in a hundred is expected.
#' decide_guides(scores, fdr = 0.01)
#'
#' # The surest calls: odds of at least exp(20) to 1.
#' sure <- decide_guides(scores, min_log_odds = 20, log_odds = TRUE)
#' head(sure$pairs)
#' @export
decide_guides <- function(scores, min_confidence = NULL, min_umi = 0, quantile = NULL, fdr = NULL,
                          fdr_by = c("overall", "guide"), min_log_odds = NULL, log_odds = FALSE) {
  if (!inherits(scores, "guide_scores")) {
    abort("argument", "`scores` must be the result of score_guides(), not ", describe_class(scores), ".")
  }
  info <- find_model(scores$model)
  check_one_rule(
    min_confidence = !is.null(min_confidence), min_log_odds = !is.null(min_log_odds), quantile = !is.null(quantile),
    fdr = !is.null(fdr)
  )
  check_flag(log_odds, "log_odds")
  if (log_odds) check_has_posterior("log_odds", info)
  decide <- function(rule, cut) decide_scores(scores, info, rule, cut, min_umi, add_log_odds = log_odds)
  if (!is.null(fdr)) {
    rule <- check_fdr_by(fdr_by)
    decide(rule, check_fdr(fdr, info))
  } else if (!missing(fdr_by)) {
    abort("argument", "`fdr_by` means nothing without `fdr`: give that too, for example fdr = 0.05.")
  } else if (!is.null(min_log_odds)) {
    decide("min_log_odds", check_min_log_odds(min_log_odds, info))
  } else if (!is.null(quantile)) {
    refuse_quantile(info)
    decide("quantile", check_number(quantile, "quantile", 0, 1))
  } else if (!is.null(min_confidence)) {
    decide("min_confidence", check_number(min_confidence, "min_confidence", 0, 1))
  } else {
    decide(info$rule, info$cut)
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
  check_has_posterior("fdr", info)
  check_number(fdr, "fdr", 0, 1)
}

check_min_log_odds <- function(min_log_odds, info) {
  check_has_posterior("min_log_odds", info)
  if (!is.numeric(min_log_odds) || length(min_log_odds) != 1L || !is.finite(min_log_odds)) {
    abort("argument", "`min_log_odds` must be one finite number, not ", describe(min_log_odds), ".")
  }
  as.double(min_log_odds)
}

# `name` is the argument that needs posteriors.
check_has_posterior <- function(name, info) {
  if (has_posterior(info)) return(invisible())
  why <- if (info$rule == "single_stage") {
    paste0("the model \"", info$model, "\" decides by itself.")
  } else {
    paste0("those of the model \"", info$model, "\" are not (", info$confidence, "). Give `", info$rule, "`.")
  }
  models <- guide_models()
  abort(
    "argument", "`", name, "` needs scores that are posterior probabilities; ", why, "\n  The models that have them are ",
    paste(models$model[has_posterior(models)], collapse = ", "), "."
  )
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

has_posterior <- function(info) info$confidence == "posterior" & info$rule != "single_stage"

describe_class <- function(x) paste0("an object of class ", quote_names(class(x)))

refuse_quantile <- function(info) {
  if (info$rule != "quantile") {
    abort("argument", "`quantile` is for the model \"quantiles\"; \"", info$model, "\" is decided by ",
          if (info$rule == "single_stage") "itself." else "`min_confidence`.")
  }
}

# Rules for which posteriors that round to 1 are not all the same.
uses_log_odds <- function(rule) rule %in% c("min_log_odds", "fdr", "fdr_per_guide")

# guide_scores -> guide_calls. `rule` is one of rust_decide(), `cut` its value; `add_log_odds` gives `$pairs` a column more.
decide_scores <- function(scores, info, rule, cut, min_umi, n_jobs = NULL, add_log_odds = FALSE) {
  min_umi <- check_number(min_umi, "min_umi", 0, Inf)
  # Before anything is said of the scores.
  force(cut)
  counts <- scores$counts
  log_odds <- if (uses_log_odds(rule) || add_log_odds) scores_log_odds(scores, rule, add_log_odds) else double()
  fits <- scores$fits
  per_guide <- "guide_id" %in% names(fits)
  decided <- rust_decide(
    counts, scores$posterior@x, log_odds, rule, cut, min_umi, has_posterior(info), add_log_odds,
    if (per_guide) fits$status else character(), n_jobs
  )
  if (add_log_odds) decided$pairs$log_odds <- decided$log_odds
  assigned <- sparse_of_rust(decided$p, decided$i, rep(1, length(decided$i)), dim(counts), dimnames(counts))
  if (per_guide) fits[names(decided$guides)] <- decided$guides
  calls <- structure(
    list(
      cells = as_data_frame(decided$cells),
      pairs = as_data_frame(decided$pairs),
      assigned = assigned,
      counts = counts,
      fits = fits,
      screen = scores$screen,
      model = scores$model,
      params = c(scores$params, rule_params(rule, cut, min_umi)),
      version = scores$version
    ),
    class = "guide_calls"
  )
  carry_guides(carry_samples(calls, scores$samples), scores$guides)
}

# The log odds of the stored counts. Scores of earlier versions have none: double(), by which Rust goes by the posteriors, or where
# a column is wanted their own logarithms.
scores_log_odds <- function(scores, rule, add_log_odds) {
  if (!is.null(scores$log_odds)) return(scores$log_odds@x)
  say_choice(
    "`scores` has no log odds: they are taken from the posteriors, so that those which round to 1 are all the same. ",
    "score_guides() keeps them."
  )
  if (!add_log_odds) return(double())
  pmin(pmax(stats::qlogis(scores$posterior@x), -most_log_odds), most_log_odds)
}

# Rust's MOST_LOG_ODDS.
most_log_odds <- 1e4

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
