#' Score guides
#'
#' Fits a model once and keeps its scores, so that [decide_guides()] can try many thresholds without a new fit.
#'
#' @inheritParams assign_guides
#' @return An object of class `guide_scores`, a list with
#'   \describe{
#'     \item{posterior}{dgCMatrix, guides x cells, with the pattern of the counts. The posterior probability that the cell
#'       carries the guide; for the model `quantiles` the guide's share of the cell's guide UMIs.}
#'     \item{log_odds}{dgCMatrix of the same pattern: the log odds of the posterior p, ln(p / (1 - p)), which tell apart pairs
#'       whose posterior rounds to 1. `plogis(log_odds)` is the posterior. They are finite, from -10,000 to 10,000, and from -700 to
#'       700 for the model `ambient`. The ends stand for all that lies further out, and -10,000 for pairs of guides without a
#'       fit. NULL for the model `quantiles`, which has no posterior.}
#'     \item{counts}{dgCMatrix, guides x cells. The UMI counts.}
#'     \item{fits}{data.frame, one row per fit, see [assign_guides()].}
#'     \item{screen}{NULL, or for the model `ambient` a data.frame with one row, see [assign_guides()].}
#'     \item{cells}{NULL, or for the model `ambient` a data.frame with one row per cell, see below.}
#'     \item{model}{chr. The name of the model.}
#'     \item{params}{list. Everything that was set.}
#'     \item{version}{chr. The version of kaichi.}
#'     \item{guides}{The guide table in the order of the counts, only where there is one.}
#'     \item{samples}{For several files, a data.frame with one row per cell: its `sample`, and what the sample sheet says of that.}
#'   }
#'   It holds plain R values and survives [saveRDS()].
#' @section What the model `ambient` learns:
#'   `vignette("models")` has the model as mathematics, with its priors. The posteriors follow from these numbers and the counts.
#'
#'   `$fits` has one row per guide:
#'   \describe{
#'     \item{prior}{dbl, 0 to 1. The probability that a cell carries the guide.}
#'     \item{ambient_share}{dbl, 0 to 1. The guide's share of the ambient UMIs. The shares sum to 1.}
#'     \item{efficiency}{dbl > 0. The mean signal UMIs of the guide in a carrier whose capture is 1.}
#'   }
#'   `$cells` has one row per cell:
#'   \describe{
#'     \item{cell_barcode}{chr.}
#'     \item{exposure_expected, capture_expected}{dbl > 0. The exposure and the capture expected of a cell of this batch and
#'       covariate, before its guides are looked at. Cells of similar covariate share them: ln(covariate / mean) is rounded to
#'       eighths.}
#'     \item{exposure}{dbl > 0. The posterior mean of the ambient UMIs of the cell, all guides together.}
#'     \item{capture}{dbl > 0. The posterior mean of the factor on the signal UMIs of the cell. Its average over cells is about 1.}
#'   }
#'   `$screen` has one row:
#'   \describe{
#'     \item{ambient_size, signal_size}{dbl > 0. Sizes of the negative binomials of ambient UMIs and of signal UMIs.}
#'     \item{exposure_shape, capture_shape}{dbl > 0. Shapes of the gamma distributions of exposure and capture over cells.}
#'     \item{hopping}{dbl > 0. Chimeric UMIs for each UMI of the cell in guides with more UMIs.}
#'     \item{burst}{dbl > 0. Chimeric UMIs come in bursts: their variance is 1 + `burst` times their mean.}
#'     \item{exposure_slope, capture_slope}{dbl, 0 to 1.5. Powers of the covariate in the expected exposure and capture; NA without a
#'       covariate.}
#'     \item{empty_weight}{dbl > 0. The odds that a cell carries no guide, relative to guides that are carried independently of each
#'       other. It is below 1 where cells were selected for guides, and 1 for a single guide.}
#'     \item{at_bound}{chr. The names of the parameters of this table that ended at a bound of their range, separated by `", "`; `""` if
#'       there are none. A bound may stand for a value beyond it.}
#'     \item{log_lik}{dbl. The log-likelihood of the cells that these were learnt from, at most 20,000. If none of those is without
#'       UMIs, it is the likelihood given that a cell has UMIs.}
#'     \item{bic_gain}{dbl. BIC of a screen without any signal less BIC of the model.}
#'     \item{iterations, converged}{int, lgl. Rounds of the fit, and whether it ended before the last one allowed.}
#'   }
#' @section Many guides or many machines:
#'   One machine is nearly always enough: the threads of `n_jobs` share one copy of the counts, and nothing has to be sent. Workers
#'   are for fits that take one machine too long: `poisson`, `neg_binomial` and `binomial` of tens of thousands of guides in
#'   millions of cells.
#'
#'   With a `BPPARAM` of the package BiocParallel the guides are cut into one range (shard) for each of its workers, of about equal
#'   work, and fitted there: in new processes (`SnowParam`), forks (`MulticoreParam`), jobs of a cluster (`BatchtoolsParam`), or in
#'   this session (`SerialParam`). The result is the same, bit for bit, as each guide has a fit of its own that needs nothing of
#'   the other guides but the depth of the cells. This holds for the models whose `family` is `"mixture"` and whose `fitted_per` is
#'   `"guide"` in [guide_models()]: poisson_gauss, poisson, neg_binomial, binomial and gauss. The others are run in this session:
#'   `ambient` couples all guides and cells, beta2 and beta3 have one fit per batch, and the rest have nothing to fit. Reading for
#'   this session, and deciding, take place here as well: it holds counts and posteriors of the whole screen.
#'
#'   If `x` is a path, each worker reads the file for itself and keeps its guides, which is cheap beside the fits: every worker
#'   must see the same file at the same path, and needs memory for the counts of all guides (12 bytes each). If `x` is a matrix
#'   or an object, its rows, the depth and the batch are sent. Workers need the same version of kaichi. `n_jobs` is the threads of
#'   each worker, NULL is one. An error of a worker is raised here with its class; a worker that cannot work at all is a
#'   `kaichi_error_worker`.
#' @section Errors:
#'   As [assign_guides()]; the single-stage models umi, max and ratio are refused (`kaichi_error_model`), because they leave
#'   nothing to decide.
#' @seealso [decide_guides()], [guide_models()]
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' scores <- score_guides(path)
#' decide_guides(scores, min_confidence = 0.95)
#'
#' \dontrun{
#' # Eight jobs of 16 threads on a cluster with SLURM, by the template of the package batchtools:
#' # walltime in seconds, memory in megabytes per thread. All folders must be seen by all machines.
#' slurm <- BiocParallel::BatchtoolsParam(
#'   workers = 8, cluster = "slurm", resources = list(ncpus = 16, memory = 4000, walltime = 7200),
#'   registryargs = BiocParallel::batchtoolsRegistryargs(file.dir = "/shared/kaichi-jobs")
#' )
#' scores <- score_guides(
#'   "/shared/screen.h5ad", "neg_binomial",
#'   batch = "lane", n_jobs = 16, BPPARAM = slurm
#' )
#' calls <- decide_guides(scores)
#' }
#' @export
score_guides <- function(x, model = "poisson_gauss", ..., guides = NULL, batch = NULL, covariate = NULL, modality = NULL,
                         layer = NULL, feature_type = NULL, orientation = NULL, features = NULL, barcodes = NULL,
                         n_jobs = NULL, control = model_control(), BPPARAM = NULL, verbose = NULL) {
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
  refuse_covariate(covariate, info)
  check_bpparam(BPPARAM)
  check_verbose(verbose)
  input <- verb_input(x, info, batch, covariate, modality, layer, guides, feature_type, orientation, features, barcodes, n_jobs)
  with_progress(
    verbose, "Fitting guides", score_counts(input$counts, info, n_jobs, control, BPPARAM, input$file, log_odds = has_posterior(info))
  )
}

refuse_covariate <- function(covariate, info) {
  if (is.null(covariate) || info$uses_covariate) return(invisible())
  models <- guide_models()
  abort(
    "argument", "`covariate` means nothing for the model \"", info$model, "\". It is used by ",
    paste(models$model[models$uses_covariate], collapse = ", "), "; leave it out."
  )
}

# What guide_counts() returned -> guide_scores. `file` is where it came from, see shard_file(). Log odds are as large as the counts:
# without `log_odds` they are not made.
score_counts <- function(counts, info, n_jobs, control, BPPARAM = NULL, file = NULL, log_odds = FALSE) {
  scored <- if (is.null(BPPARAM) || !has_shards(info)) {
    rust_score(counts$counts, info$model, control, counts$batch, counts$covariate, n_jobs, log_odds = log_odds)
  } else {
    score_shards(counts, info, n_jobs, control, BPPARAM, file, log_odds)
  }
  as_matrix <- function(x) {
    matrix <- counts$counts
    matrix@x <- x
    matrix
  }
  batches <- levels(counts$batch)
  scores <- structure(
    list(
      posterior = as_matrix(scored$score),
      log_odds = if (!is.null(scored$log_odds)) as_matrix(scored$log_odds),
      counts = counts$counts,
      fits = name_fits(scored$fits, rownames(counts$counts), batches),
      screen = scored$screen,
      cells = if (!is.null(scored$cells)) cbind(cell_barcode = colnames(counts$counts), scored$cells),
      model = info$model,
      params = score_params(control, batches, !is.null(counts$covariate)),
      version = kaichi_version()
    ),
    class = "guide_scores"
  )
  # No element where there is no table, or one file.
  scores$guides <- counts$guides
  scores$samples <- counts$samples
  scores
}

# How counts were scored, for the params of a guide_scores.
score_params <- function(control, batches, covariate) c(unclass(control), list(batches = batches, covariate = covariate))

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
    fits_line(x$fits, x$model),
    "  Next: decide_guides(scores, ", find_model(x$model)$rule, " = ", format(find_model(x$model)$cut), ")\n",
    sep = ""
  )
  invisible(x)
}

big <- function(n) format(n, big.mark = ",", trim = TRUE)

# "  fits: 84 ok, 2 gated"; nothing for models without a fit.
fits_line <- function(fits, model) {
  if (find_model(model)$family != "mixture") return("")
  n <- table(factor(fits$status, unique(c("ok", "not_converged", "no_signal", "gated", fits$status))))
  n <- n[n > 0L]
  paste0("  fits: ", paste(big(as.vector(n)), names(n), collapse = ", "), "\n")
}
