#' Score guides
#'
#' Fits a model once and keeps its scores, so that [decide_guides()] can try many thresholds without a new fit.
#'
#' @inheritParams assign_guides
#' @return An object of class `guide_scores`, a list with
#'   \describe{
#'     \item{posterior}{dgCMatrix, guides x cells, with the pattern of the counts. The posterior probability that the cell
#'       carries the guide; for the model `quantiles` the guide's share of the cell's guide UMIs.}
#'     \item{counts}{dgCMatrix, guides x cells. The UMI counts.}
#'     \item{fits}{data.frame, one row per fit, see [assign_guides()].}
#'     \item{model}{chr. The name of the model.}
#'     \item{params}{list. Everything that was set.}
#'     \item{version}{chr. The version of kaichi.}
#'   }
#'   It holds plain R values and survives [saveRDS()].
#' @section Errors:
#'   As [assign_guides()]; the single-stage models umi, max and ratio are refused (`kaichi_error_model`), because they leave
#'   nothing to decide.
#' @seealso [decide_guides()], [guide_models()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' scores <- score_guides(path)
#' decide_guides(scores, min_confidence = 0.95)
#' @export
score_guides <- function(x, model = "poisson_gauss", ..., batch = NULL, modality = NULL, layer = NULL, n_jobs = NULL,
                         control = model_control()) {
  check_dots_empty(...)
  info <- find_model(model)
  if (info$rule == "single_stage") {
    abort(
      "model", "The model \"", info$model, "\" decides in a single stage and has no scores to keep.\n",
      "  Use assign_guides(x, model = \"", info$model, "\")."
    )
  }
  check_control(control)
  check_n_jobs(n_jobs)
  score_counts(guide_counts(x, batch = batch, modality = modality, layer = layer, n_jobs = n_jobs), info, n_jobs, control)
}

# What guide_counts() returned -> guide_scores.
score_counts <- function(counts, info, n_jobs, control) {
  scored <- rust_score(counts$counts, info$model, control, counts$batch, n_jobs)
  posterior <- counts$counts
  posterior@x <- scored$score
  batches <- levels(counts$batch)
  structure(
    list(
      posterior = posterior,
      counts = counts$counts,
      fits = name_fits(scored$fits, rownames(counts$counts), batches),
      model = info$model,
      params = c(unclass(control), list(batches = batches)),
      version = kaichi_version()
    ),
    class = "guide_scores"
  )
}

# Codes of Rust -> names: the column guide becomes guide_id, batch its levels, gamma_0 the level it belongs to.
name_fits <- function(fits, guides, batches) {
  if ("guide" %in% names(fits)) {
    fits$guide <- guides[fits$guide + 1L]
    names(fits)[names(fits) == "guide"] <- "guide_id"
  }
  if ("batch" %in% names(fits)) {
    fits$batch <- if (is.null(batches)) rep("all", nrow(fits)) else batches[fits$batch + 1L]
  }
  gamma <- grep("^gamma_[0-9]+$", names(fits))
  names(fits)[gamma] <- paste0("gamma_", batches[as.integer(sub("gamma_", "", names(fits)[gamma], fixed = TRUE)) + 1L])
  fits
}

kaichi_version <- function() as.character(utils::packageVersion("kaichi"))

#' @export
print.guide_scores <- function(x, ...) {
  cat(
    "<guide_scores> ", big(nrow(x$counts)), " guides x ", big(ncol(x$counts)), " cells, model ", x$model, "\n",
    "  ", big(length(x$counts@x)), " stored counts scored\n",
    fits_line(x$fits),
    "  Next: decide_guides(scores, ", if (x$model == "quantiles") "quantile = 0.05" else "min_confidence = 0.9", ")\n",
    sep = ""
  )
  invisible(x)
}

big <- function(n) format(n, big.mark = ",", trim = TRUE)

# "  fits: 84 ok, 2 gated"; nothing where all is well without a fit.
fits_line <- function(fits) {
  n <- table(factor(fits$status, unique(c("ok", "not_converged", "no_signal", "gated", fits$status))))
  n <- n[n > 0L]
  if (!"log_lik" %in% names(fits)) return("")
  paste0("  fits: ", paste(big(as.vector(n)), names(n), collapse = ", "), "\n")
}
