# Shows what the registry in Rust says, nothing else.

#' The models of guide assignment
#'
#' Lists every model that [assign_guides()] and [score_guides()] know.
#'
#' @return A data.frame with one row per model:
#'   \describe{
#'     \item{model}{chr. The name to give as `model =`.}
#'     \item{family}{chr. `"threshold"`, `"rank"` or `"mixture"`.}
#'     \item{fitted_per}{chr. What one fit is made for: `"cell"` (no fit), `"guide"`, `"batch"` or
#'       `"screen"` (all guides and cells together).}
#'     \item{uses_depth, uses_batch, uses_covariate}{lgl. Whether the guide UMIs of the cell, `batch =` and `covariate =` enter
#'       the model.}
#'     \item{confidence}{chr. What `assignment_confidence` is: `"1"`, `"y / depth"` (the share of the cell's guide UMIs) or
#'       `"posterior"` (the probability that the cell carries the guide).}
#'     \item{rule}{chr. How scores become calls: `"single_stage"` (the model decides by itself), `"min_confidence"` or
#'       `"quantile"`.}
#'     \item{cut}{dbl, 0 to 1. The default of that argument; NA for single-stage models.}
#'     \item{about, when}{chr. What the model is, and when to use it.}
#'   }
#' @examples
#' guide_models()[, c("model", "fitted_per", "cut", "about")]
#' @export
guide_models <- function() {
  as.data.frame(rust_models(), stringsAsFactors = FALSE)
}

# One row of guide_models() as a list; an unknown name is an error with the nearest one.
find_model <- function(model) {
  if (!is.character(model) || length(model) != 1L || is.na(model)) {
    abort("model", "`model` must be the name of one model in quotes. guide_models() lists them.")
  }
  as.list(guide_models()[rust_find_model(model), ])
}

#' Settings of the models
#'
#' The defaults serve all screens; change one when [guide_models()] or a status in `$fits` gives a reason.
#'
#' @param umi_threshold Model `umi`: least UMIs of a call. One number, 1 or more.
#' @param min_fraction Model `ratio`: the share of the cell's guide UMIs that its largest guide must exceed. One number, 0
#'   to 1.
#' @param starts Mixtures: how many starting points are tried; the best log-likelihood wins. One whole number, 1 or more.
#' @param iterations Mixtures: most EM iterations of a fit. One whole number, 1 or more.
#' @param tolerance Mixtures: a fit has converged when an iteration gains less log-likelihood (in nats) than this. One
#'   number > 0.
#' @param gates Named numbers: a guide is not fitted when fewer than `min_cells` cells have it, or its largest count is
#'   below `min_count`. Such a guide is a row of `$fits` with status `"gated"`.
#' @return A list of class `model_control`, for `control =` of [assign_guides()] and [score_guides()].
#' @examples
#' model_control(umi_threshold = 3)
#' @export
model_control <- function(umi_threshold = 5, min_fraction = 0.3, starts = 8, iterations = 500, tolerance = 1e-6,
                          gates = c(min_cells = 2, min_count = 2)) {
  unknown <- setdiff(names(gates), c("min_cells", "min_count"))
  if (!is.numeric(gates) || is.null(names(gates)) || length(unknown) > 0L) {
    abort("argument", "`gates` must be numbers named `min_cells` and `min_count`.")
  }
  defaults <- rust_control()
  gate <- function(name, default) if (name %in% names(gates)) gates[[name]] else default
  control <- list(
    umi_threshold = check_number(umi_threshold, "umi_threshold", 1, Inf),
    min_fraction = check_number(min_fraction, "min_fraction", 0, 1),
    starts = check_number(starts, "starts", 1, 1000, whole = TRUE),
    iterations = check_number(iterations, "iterations", 1, 1e6, whole = TRUE),
    tolerance = check_number(tolerance, "tolerance", .Machine$double.xmin, Inf),
    gate_cells = check_number(gate("min_cells", defaults$gate_cells), "gates[\"min_cells\"]", 0, 2^31 - 1, whole = TRUE),
    gate_count = check_number(gate("min_count", defaults$gate_count), "gates[\"min_count\"]", 0, 2^31 - 1, whole = TRUE)
  )
  structure(control, class = "model_control")
}

check_number <- function(value, name, low, high, whole = FALSE) {
  ok <- is.numeric(value) && length(value) == 1L && !is.na(value) && value >= low && value <= high &&
    (!whole || value == round(value))
  if (!ok) {
    abort(
      "argument", "`", name, "` must be one ", if (whole) "whole number" else "number",
      if (is.finite(high)) sprintf(" from %s to %s", format(low), format(high)) else sprintf(", %s or more", format(low)),
      ", not ", describe(value), "."
    )
  }
  as.double(value)
}

# A short word for a bad value in messages.
describe <- function(value) {
  if (is.null(value)) return("NULL")
  if (length(value) != 1L) return(paste0("a ", class(value)[1L], " of length ", length(value)))
  if (is.atomic(value)) return(if (is.character(value) && !is.na(value)) quote_names(value) else format(value))
  paste0("a ", class(value)[1L])
}

check_dots_empty <- function(...) {
  if (...length() == 0L) return(invisible())
  names <- names(list(...))
  if (is.null(names) || names[1L] == "") {
    abort("argument", "Arguments after `model` need their names, for example min_umi = 2.")
  }
  abort("argument", "There is no argument `", names[1L], "`. Is it misspelt?")
}

check_n_jobs <- function(n_jobs) {
  if (!is.null(n_jobs)) check_number(n_jobs, "n_jobs", 1, 1024, whole = TRUE)
  n_jobs
}

check_control <- function(control) {
  if (!inherits(control, "model_control")) {
    abort("argument", "`control` must come from model_control(), for example control = model_control(umi_threshold = 3).")
  }
  control
}
