#' Assign guides to cells
#'
#' Decides which guides each cell of a CRISPR screen received: scores every (cell, guide) pair by a model and calls those that
#' pass its threshold.
#'
#' @param x One of: the path of a file or folder of any format of [read_guides()] (`.h5ad`, `.h5mu`, 10x HDF5, Matrix Market, CSV or
#'   TSV); several paths, named by sample, or a sample sheet, see Several files of [read_guides()]; a data.frame of counts, wide or long;
#'   a guides x cells matrix (a matrix, a
#'   `dgCMatrix` or other class of the Matrix package, a `DelayedMatrix`) with row and column names; a
#'   `SingleCellExperiment` or `SummarizedExperiment`; a `Seurat` object (v4 or v5 assays). Counts are raw UMIs: whole numbers,
#'   0 or more.
#' @param model The name of a model of [guide_models()].
#' @param ... Must be empty.
#' @param min_confidence Calls have a score of at least this. One number, 0 to 1; NULL is the default of the model (0.8, for ambient,
#'   beta2 and beta3 0.5). Not for umi, max and ratio, which decide by themselves.
#' @param quantile Model `quantiles`: per guide, the share (0 to 1) of the cells with the guide that is called, rounded down.
#'   NULL is 0.05.
#' @param fdr Instead of `min_confidence`, for models whose score is a posterior: the largest set of pairs is called whose
#'   expected share of false pairs is at most this. One number, 0 to 1, however small: see [decide_guides()], which can hold it for
#'   each guide.
#' @param min_log_odds Instead of `min_confidence`, for models whose score is a posterior p: calls have log odds, ln(p / (1 - p)), of
#'   at least this. One finite number. Unlike a confidence near 1 it tells apart posteriors that round to 1.
#' @param min_umi Pairs with fewer UMIs are not called, whatever the model. One number, 0 or more. Models that compare a guide
#'   with the cell's own total (max, ratio, quantiles, poisson, neg_binomial, binomial, beta2, beta3) can call single UMIs in
#'   cells with hardly any; `min_umi = 2` or 3 drops those.
#' @param guides NULL, or the guide table: a data.frame or the path of a CSV or TSV file with `guide_id` and any of `target`,
#'   `construct`, `type` and `sequence`, see [read_guide_table()]. Every guide of the counts must be in it; it may have more. NULL: what
#'   the file itself says of its guides, such as the targets in a 10x `.h5`. The table also tells guides from genes where a file does
#'   not. `"union"` takes all guides of several files that do not have the same.
#' @param batch NULL for one batch; a vector with one value per cell; or the name of a column of the file's obs or of the
#'   object's cell metadata, or of the sample sheet; `"barcode_suffix"` for the number at the end of each barcode, as
#'   `cellranger aggr` writes it. If `NULL` and there are several files, the sample, with a message; `FALSE` for none. Used by poisson, neg_binomial, binomial (an effect per batch), ambient (exposure
#'   and capture per batch) and beta2, beta3 (a fit per batch).
#' @param covariate Model `ambient`: what may tell of the ambient UMIs and the capture of a cell beyond its guides, such as its RNA
#'   UMIs. NULL for none; a number above 0 for each cell, in order or named by cell; or the name of a column of the object's
#'   cell metadata, as in `covariate = "nCount_RNA"`. Both follow a power of it that is learnt from the counts (`exposure_slope`
#'   and `capture_slope` in `$screen`, 0 to 1.5, NA without a covariate), so that one that tells nothing is left out.
#' @param modality Which altExp (or the main experiment, by its `mainExpName`), assay, or modality of an `.h5mu` holds the guides. NULL: it is found,
#'   and the choice is said; several candidates are an error that lists them.
#' @param layer The layer of the file, the assay of the SummarizedExperiment, or the layer (slot) of the Seurat assay with the
#'   counts. NULL: X of a file, else `counts`.
#' @param feature_type,orientation,features,barcodes For the path of a file: which features are guides, what the rows of a Matrix
#'   Market file or of a table are, and the files that name its features and cells, as for [read_guides()]. If `NULL`, they are found,
#'   and the choice is reported in a message.
#' @param n_jobs Worker threads, a whole number. NULL is half of the logical cores, at least one. Results do not depend on it.
#' @param control Settings of the models, from [model_control()].
#' @param BPPARAM NULL, or a `BiocParallelParam` on whose workers the guides are fitted, which may be other machines; see the
#'   section Many guides or many machines of [score_guides()]. Results do not depend on it. `n_jobs` is then the threads of each
#'   worker, and NULL is one.
#'
#' @param output NULL, or for the path of a file: the name of an `.h5ad` to write the calls to, see Output to a file.
#' @param overwrite Whether an `output` that exists is replaced: TRUE or FALSE. FALSE makes it an error.
#' @param verbose Whether a bar of the package cli shows how many fits are done and the time left, after the first two seconds:
#'   TRUE or FALSE. NULL: if the session is interactive, outside of knitr, and cli is installed. Ctrl-C stops the work at once.
#'
#' @return For a path or a matrix an object of class `guide_calls`, a list with
#'   \describe{
#'     \item{cells}{data.frame, one row per cell in input order: `cell_barcode` chr; `guide_id` chr, the called guide with the
#'       highest confidence, then the most UMIs, then the earliest in the input, NA if none; `umi_count` int, UMIs of that
#'       guide, NA if none; `assignment_confidence` dbl, 0 to 1, its score, NA if none; `is_unassigned` lgl;
#'       `is_multi_infected` lgl, more than one guide called; `n_guides_detected` int, guides called; `set_probability` dbl, 0
#'       to 1, the probability that the cell carries exactly the guides called: over its guides with counts, the posterior of
#'       those called times one less the posterior of the others, as if guides came independently. Guides without counts in
#'       the cell are taken as absent. NA for models whose score is no posterior; for several files `sample` chr, and the other
#'       columns of the sample sheet; `target` chr, that of `guide_id`, only where
#'       the guide table has targets.}
#'     \item{pairs}{data.frame, one row per called (cell, guide) pair: `cell_barcode`, `guide_id`, `umi_count`,
#'       `assignment_confidence`.}
#'     \item{assigned}{dgCMatrix, guides x cells, 1 where called.}
#'     \item{counts}{dgCMatrix, guides x cells, UMIs.}
#'     \item{fits}{data.frame, one row per guide (per batch for beta2 and beta3): `guide_id` or `batch`; `status`: `"ok"`,
#'       `"gated"` (too little to fit), `"no_signal"` (nothing above the background), `"not_converged"`,
#'       `"fewer_components"` (beta2 and beta3: fewer populations than Betas); `n_cells` int, cells with the guide; the
#'       parameters of the model; the shares of its components; `log_lik`; `bic_gain` dbl, BIC of one component less BIC of
#'       the mixture; `iterations`; `converged` (for `ambient` these four are in `$screen`); `note` chr, the status in words; and for fits per guide, what the
#'       calls are worth: `n_cells_called` int; `min_umi_called` int, the smallest count called, NA if none;
#'       `expected_cells` dbl, 0 or more, the sum of the posteriors of all cells with the guide; `expected_precision` dbl, 0
#'       to 1, the mean posterior of the calls, NA if none; `expected_recall` dbl, 0 to 1, the share of `expected_cells` that
#'       is called, NA if that is 0; `separation` dbl, 0 to 1, how far apart the components are: the mean posterior of carriers
#'       less that of the other cells with the guide, each cell counted in both by its posterior, 1 where every cell is certain,
#'       NA if `expected_cells` is 0 (these four NA for models whose score is no posterior); `warning` chr, see Warnings.}
#'     \item{screen}{data.frame with one row: what a model learns of the screen as a whole. NULL for all models except `ambient`,
#'       whose columns [score_guides()] explains: the parameters that all guides share (`ambient_size`, `signal_size`,
#'       `exposure_shape`, `capture_shape`, `hopping`, `burst`, `exposure_slope`, `capture_slope`, `empty_weight`), the names of
#'       those that ended at a bound (`at_bound`), and how the fit went (`log_lik`, `bic_gain`, `iterations`, `converged`).}
#'     \item{model, params, version}{What was run: the model's name, every setting, the version of kaichi.}
#'     \item{guides}{The guide table in the order of the counts, only where there is one. [call_constructs()], [cell_columns()] and
#'       [write_calls()] use it.}
#'   }
#'   `as.data.frame()` of it is `$cells`. It holds plain R values and survives [saveRDS()].
#'
#'   For a SingleCellExperiment, SummarizedExperiment or Seurat object the same object with the calls attached, see below.
#'
#'   With `output`, invisibly a list with `output`, the path of the file; `n_cells`; and `fits`, `screen`, `model`, `params` and
#'   `version` as above.
#' @section Warnings:
#'   `warning` of `$fits` is `""` where nothing is wrong with the guide, else one or more of these, parted by `"; "`:
#'   \describe{
#'     \item{too little to fit, no signal, fit not converged}{The fit's status; its `note` says more.}
#'     \item{few cells}{Fewer than 5 cells called of a guide with none of the first two.}
#'     \item{most calls are single UMIs}{More than half of at least 5 calls are of one UMI.}
#'     \item{calls are uncertain}{`expected_precision` below 0.8.}
#'     \item{overlapping components: most of the signal lies below the cut}{`expected_recall` below 0.5, where at least one
#'       cell is expected.}
#'     \item{background in most cells}{More than half of the cells with any guide UMI have the guide, but fewer than a tenth
#'       of them are called.}
#'     \item{present in most cells}{More than half of all cells are called.}
#'   }
#' @section Containers:
#'   All containers get the columns of `$cells`, without `cell_barcode`, in `colData(x)` or `x@meta.data`. Cells and guides are
#'   matched by name. Cells of the object that the guide assay does not have get NA as guide, `is_unassigned` TRUE and 0 guides.
#'   A rerun overwrites only what is named here.
#'   \describe{
#'     \item{SingleCellExperiment, SummarizedExperiment}{The 0/1 matrix is the assay `assigned` beside the counts: in the altExp
#'       of the guides, or in the main experiment, whose rowData get the columns of the guide table. Model, params, version, fits and screen are in `metadata()$kaichi` of the same
#'       experiment, as in `metadata(altExp(x, "guides"))$kaichi`. A main experiment that holds genes and guides is refused: split
#'       it first, with `splitAltExps(x, rowData(x)$Type)`.}
#'     \item{Seurat, guides in an `Assay5`}{The 0/1 matrix is the layer `assigned` of the guide assay.}
#'     \item{Seurat, guides in an `Assay` (Seurat 4, or `CreateAssayObject()`)}{The 0/1 matrix is an assay of its own, named
#'       `<assay>_assigned`, as in `CRISPR_assigned`.}
#'     \item{Seurat, both}{Model, params, version, fits and screen are in `Misc(x[["CRISPR"]], "kaichi")`. Seurat turns `_` into `-` in
#'       the names of features; calls carry Seurat's names. Choose cells with
#'       `subset(x, subset = n_guides_detected == 1)`; Seurat 5 wants the `subset =`.}
#'   }
#' @section Output to a file:
#'   `assign_guides("guides.h5ad", output = "calls.h5ad")` writes the calls to a file that anndata and kaichi for Python read, and
#'   does not hold them in memory: the counts are read twice, a block of cells at a time, so that a file larger than memory will
#'   do. The calls are those without `output`, bit for bit. In blocks work the models umi, max, ratio, gauss and poisson_gauss, by
#'   `min_confidence`, `min_log_odds` or `fdr`, without `batch` or `BPPARAM`, for an `.h5ad` whose counts are compressed by cells (`csr_matrix`);
#'   counts stored otherwise are read into memory, 12 bytes each. The other models look at the whole matrix: they hold counts,
#'   scores and what the fit needs, some 50 bytes for each stored count, ambient 100, and write the same file.
#'
#'   The file is made under a temporary name in the folder of `output`, which starts with a dot and ends in `.part`, and renamed
#'   when it is whole: an error, a full disk or Ctrl-C leaves nothing, a killed process only that temporary
#'   file. Room on the disk for the whole file, and as much as `x` takes, is set aside before anything is written. Of several
#'   processes that write the same file, one writes it and, without `overwrite`, the others get an error. It has
#'   \describe{
#'     \item{X}{The counts, cells x guides, as sparse rows.}
#'     \item{layers}{`assigned`, 1 where called; and, but for umi, max and ratio, `scores`, the score of each stored count, so that
#'       `kaichi decide` can try other thresholds.}
#'     \item{obs}{The columns of `$cells`; `guide_identity`, the same as `guide_id`; and those of the input that anndata 0.8 or later
#'       wrote. Ours take the place of columns of the same name.}
#'     \item{var}{The columns of `$fits`, those of the guide table, and those of the input. Fits per batch are in `uns/kaichi/fits` instead.}
#'     \item{uns/kaichi}{`model`, `model_params` (JSON), `version`, `stage`, the threshold and `min_umi`; and `screen`, the table
#'       `$screen`, where there is one.}
#'   }
#' @section Errors:
#'   Every error has the class `kaichi_error` and one of `kaichi_error_file`, `_format`, `_counts`, `_names`, `_model`,
#'   `_argument`, `_batch`, `_modality`, `_package`, `_worker`.
#' @references Braunger and Velten (2024) <doi:10.1093/bioinformatics/btae535>; Replogle et al. (2020)
#'   <doi:10.1038/s41587-020-0470-y>; Barry et al. (2024) <doi:10.1186/s13059-024-03254-2>.
#' @seealso [guide_models()] for the models and when to use each, [score_guides()] and [decide_guides()] for the two steps;
#'   [attach_calls()] to join calls to another object, [write_calls()], [cell_columns()] and [as_sce()] for other tools.
#' @examples
#' path <- system.file("extdata", "guides.h5ad", package = "kaichi")
#' calls <- assign_guides(path)
#' calls
#' head(calls$cells)
#'
#' # The same from a guides x cells matrix, with another model.
#' counts <- read_guides(path)
#' assign_guides(counts, model = "umi")
#'
#' # With batches: a column of the file's obs.
#' assign_guides(path, model = "poisson", batch = "lane")
#'
#' # From file to file, for screens larger than memory.
#' file <- tempfile(fileext = ".h5ad")
#' done <- assign_guides(path, output = file)
#' head(done$fits[c("guide_id", "status", "n_cells_called")])
#'
#' # In a SingleCellExperiment.
#' if (requireNamespace("SingleCellExperiment", quietly = TRUE)) {
#'   sce <- SingleCellExperiment::SingleCellExperiment(list(counts = counts), mainExpName = "guides")
#'   sce <- assign_guides(sce)
#'   table(sce$n_guides_detected)
#' }
#' @export
assign_guides <- function(x, model = "poisson_gauss", ..., min_confidence = NULL, quantile = NULL, fdr = NULL, min_log_odds = NULL,
                          min_umi = 0, guides = NULL, batch = NULL, covariate = NULL, modality = NULL, layer = NULL,
                          feature_type = NULL, orientation = NULL, features = NULL, barcodes = NULL, n_jobs = NULL, control = model_control(), BPPARAM = NULL,
                          output = NULL, overwrite = FALSE, verbose = NULL) {
  check_dots_empty(...)
  info <- find_model(model)
  decision <- choose_rule(info, min_confidence, quantile, fdr, min_log_odds)
  min_umi <- check_number(min_umi, "min_umi", 0, Inf)
  check_control(control)
  check_n_jobs(n_jobs)
  refuse_covariate(covariate, info)
  check_bpparam(BPPARAM)
  check_verbose(verbose)
  if (!is.null(output)) {
    check_output(x, output, overwrite)
    if (!is.null(layer)) check_string(layer, "layer", "the name of a layer, or NULL for X")
    # R has what else there may be.
    counts_only <- is.null(batch) && is.null(covariate) && is.null(modality) && is.null(BPPARAM) &&
      is.null(guides) && is.null(feature_type) && is.null(orientation) && is.null(features) && is.null(barcodes)
    if (counts_only && is_one_file(x) && rust_is_h5ad(path.expand(x), layer)) {
      return(invisible(with_progress(
        verbose, "Assigning guides",
        stream_guides(x, layer, output, overwrite, info, control, decision, min_umi, n_jobs)
      )))
    }
  }
  input <- verb_input(x, info, batch, covariate, modality, layer, guides, feature_type, orientation, features, barcodes, n_jobs)
  scores <- with_progress(
    verbose, "Fitting guides",
    score_counts(input$counts, info, n_jobs, control, BPPARAM, input$file, log_odds = uses_log_odds(decision$rule))
  )
  calls <- decide_scores(scores, info, decision$rule, decision$cut, min_umi, n_jobs)
  if (!is.null(output)) {
    score <- if (info$rule == "single_stage") double() else scores$posterior@x
    template <- if (is_one_file(x) && rust_is_h5ad(path.expand(x), layer)) path.expand(x) else ""
    # Targets that the file itself has are among its columns, which are kept, as where the calls go from file to file.
    if (nzchar(template) && is.null(guides)) calls <- without_guide_table(calls)
    write_h5ad_calls(calls, output, overwrite, score = score, template = template)
    return(invisible(calls_in_file(output, calls$fits, calls)))
  }
  # A sample sheet, or a table of counts.
  if (is.data.frame(x)) return(calls)
  attach_calls(x, calls, input$counts$modality, join = "left")
}

# The one rule that decides: the user's where there is one, else the model's.
choose_rule <- function(info, min_confidence = NULL, quantile = NULL, fdr = NULL, min_log_odds = NULL) {
  check_one_rule(
    min_confidence = !is.null(min_confidence), min_log_odds = !is.null(min_log_odds), quantile = !is.null(quantile),
    fdr = !is.null(fdr)
  )
  if (!is.null(min_log_odds)) return(list(rule = "min_log_odds", cut = check_min_log_odds(min_log_odds, info)))
  if (!is.null(fdr)) return(list(rule = "fdr", cut = check_fdr(fdr, info)))
  if (!is.null(quantile)) refuse_quantile(info)
  if (!is.null(min_confidence)) {
    if (info$rule == "single_stage") {
      hint <- switch(
        info$model,
        umi = " Its threshold is control = model_control(umi_threshold = 5).",
        ratio = " Its threshold is control = model_control(min_fraction = 0.3).",
        ""
      )
      abort("argument", "`min_confidence` means nothing for the model \"", info$model, "\", which decides by itself.", hint)
    }
    return(list(rule = "min_confidence", cut = check_number(min_confidence, "min_confidence", 0, 1)))
  }
  if (!is.null(quantile)) return(list(rule = "quantile", cut = check_number(quantile, "quantile", 0, 1)))
  switch(
    info$rule,
    single_stage = list(rule = "min_confidence", cut = 0),
    list(rule = info$rule, cut = info$cut)
  )
}

#' @export
print.guide_calls <- function(x, ...) {
  cells <- x$cells
  n <- nrow(cells)
  share <- function(k) sprintf("%s (%.1f %%)", big(k), 100 * k / n)
  several <- sum(cells$is_multi_infected)
  none <- sum(cells$is_unassigned)
  cat(
    "<guide_calls> ", big(nrow(x$counts)), " guides x ", big(n), " cells, model ", x$model, rule_words(x$params), "\n",
    "  one guide:      ", share(n - several - none), "\n",
    "  several guides: ", share(several), "\n",
    "  unassigned:     ", share(none), "\n",
    "  pairs called:   ", big(nrow(x$pairs)),
    if (nrow(x$pairs) > 0L) c(", median ", format(stats::median(x$pairs$umi_count)), " UMIs"), "\n",
    fits_line(x$fits, x$model),
    "  $cells, $pairs, $assigned, $counts, $fits", if (!is.null(x$screen)) ", $screen", "; summary() for the guides\n",
    sep = ""
  )
  invisible(x)
}

rule_words <- function(params) {
  said <- c(
    if (!is.null(params$min_confidence) && params$min_confidence > 0) paste("min_confidence", format(params$min_confidence)),
    if (!is.null(params$min_log_odds)) paste("min_log_odds", format(params$min_log_odds)),
    if (!is.null(params$quantile)) paste("quantile", format(params$quantile)),
    if (!is.null(params$fdr)) paste0("fdr ", format(params$fdr), if (params$fdr_by == "guide") " per guide"),
    if (params$min_umi > 0) paste("min_umi", format(params$min_umi))
  )
  if (length(said) > 0L) paste0(" (", paste(said, collapse = ", "), ")") else ""
}

#' @export
as.data.frame.guide_calls <- function(x, row.names = NULL, optional = FALSE, ...) {
  cells <- x$cells
  if (!is.null(row.names)) rownames(cells) <- row.names
  cells
}

#' Summarise guide calls
#'
#' @param object A `guide_calls` of [assign_guides()] or [decide_guides()].
#' @param ... Not used.
#' @return An object of class `summary.guide_calls`, a list with
#'   \describe{
#'     \item{n_guides_per_cell}{Named int: cells with 0, 1, 2, ... called guides.}
#'     \item{guides}{data.frame, one row per guide: `guide_id` chr; `n_cells` int, cells with the guide at all;
#'       `n_cells_called` int; `n_cells_single` int, cells with this guide only; `median_umi` dbl, median UMIs where called;
#'       `mean_confidence` dbl, where called; `expected_precision` dbl, `expected_recall` dbl, `warning` chr, `status` chr and
#'       `note` chr of its fit, see [assign_guides()], NA where fits are per batch.}
#'     \item{worst}{chr. The guides with a warning, those of the lowest expected precision (or without calls) first.}
#'     \item{moi}{Named dbl, 0 or more: `called`, the mean number of called guides per cell; `expected`, the mean sum of a
#'       cell's posteriors, NA where the model has none or its fits are per batch.}
#'     \item{share_multiple}{dbl, 0 to 1. Cells with two or more called guides: several integrations, or doublets.}
#'     \item{share_ambient}{dbl, 0 to 1. Guide UMIs that are not in called pairs: ambient, chimeric, or missed. NA without any.}
#'     \item{single_umi_calls}{int. Calls that rest on one UMI.}
#'     \item{screen, model, params}{As in `object`.}
#'   }
#' @examples
#' summary(assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi")))
#' @export
summary.guide_calls <- function(object, ...) {
  guides <- rownames(object$counts)
  of_pair <- factor(match(object$pairs$guide_id, guides), levels = seq_along(guides))
  single <- object$cells$n_guides_detected == 1L
  by_guide <- function(value, f) {
    unname(vapply(split(as.double(value), of_pair), function(v) if (length(v) > 0L) f(v) else NA_real_, 0))
  }
  fit <- match(guides, object$fits$guide_id)
  of_fit <- function(column, none) {
    values <- object$fits[[column]]
    if (is.null(values) || is.null(object$fits$guide_id)) rep(none, length(guides)) else values[fit]
  }
  warning <- of_fit("warning", NA_character_)
  precision <- of_fit("expected_precision", NA_real_)
  per_cell <- object$cells$n_guides_detected
  n_umis <- sum(object$counts@x)
  structure(
    list(
      n_guides_per_cell = table(factor(per_cell, levels = 0:max(1L, per_cell))),
      guides = data.frame(
        guide_id = guides,
        n_cells = tabulate(object$counts@i + 1L, length(guides)),
        n_cells_called = tabulate(of_pair, length(guides)),
        n_cells_single = tabulate(match(object$cells$guide_id[single], guides), length(guides)),
        median_umi = by_guide(object$pairs$umi_count, stats::median),
        mean_confidence = by_guide(object$pairs$assignment_confidence, mean),
        expected_precision = precision,
        expected_recall = of_fit("expected_recall", NA_real_),
        warning = warning,
        status = of_fit("status", NA_character_),
        note = of_fit("note", NA_character_),
        stringsAsFactors = FALSE
      ),
      worst = guides[intersect(order(precision, na.last = FALSE), which(!is.na(warning) & warning != ""))],
      moi = c(called = mean(per_cell), expected = sum(of_fit("expected_cells", NA_real_)) / length(per_cell)),
      share_multiple = mean(per_cell >= 2L),
      share_ambient = if (n_umis > 0) 1 - sum(object$pairs$umi_count) / n_umis else NA_real_,
      single_umi_calls = sum(object$pairs$umi_count == 1L),
      screen = object$screen,
      model = object$model,
      params = object$params
    ),
    class = "summary.guide_calls"
  )
}

#' @export
print.summary.guide_calls <- function(x, ...) {
  n <- x$n_guides_per_cell
  cat("Guide calls of the model ", x$model, rule_words(x$params), "\n\nGuides per cell:\n", sep = "")
  print(n, zero.print = "0")
  guides <- x$guides
  called <- guides$n_cells_called
  percent <- function(share) sprintf("%.1f %%", 100 * share)
  cat(
    "\nGuides per cell on average (MOI): ", sprintf("%.2f", x$moi[["called"]]), " called",
    if (!is.na(x$moi[["expected"]])) sprintf(", %.2f expected", x$moi[["expected"]]), "\n",
    "Cells with two or more guides (doublet-like): ", percent(x$share_multiple), "\n",
    if (!is.na(x$share_ambient)) c("Guide UMIs outside called pairs (ambient share): ", percent(x$share_ambient), "\n"),
    sep = ""
  )
  cat(
    "Cells per guide: median ", format(stats::median(called)), ", from ", big(min(called)), " to ", big(max(called)), "\n",
    sep = ""
  )
  if (x$single_umi_calls > 0L) {
    cat("Calls that rest on one UMI: ", big(x$single_umi_calls), "; `min_umi = 2` drops them.\n", sep = "")
  }
  print_screen(x$screen)
  bad <- guides[match(x$worst, guides$guide_id), c("guide_id", "n_cells", "n_cells_called", "expected_precision", "warning")]
  if (nrow(bad) > 0L) {
    cat("\nGuides to look at (", nrow(bad), "):\n", sep = "")
    if (all(is.na(guides$expected_precision))) bad$expected_precision <- NULL
    print(utils::head(bad, 10L), row.names = FALSE, right = FALSE, digits = 3L)
    if (nrow(bad) > 10L) cat("... and ", nrow(bad) - 10L, " more in $worst and $guides\n", sep = "")
  }
  invisible(x)
}

# What was learnt of the screen as a whole, a line each; columns without a value are left out.
print_screen <- function(screen) {
  said <- screen_words(screen)
  if (length(said) == 0L) return(invisible())
  cat("\nThe screen as a whole:\n", paste0("  ", format(names(said)), "  ", said, "\n"), sep = "")
}

# Named chr, the values of `screen` that are not missing; of NULL none.
screen_words <- function(screen) {
  known <- screen[!vapply(screen, function(value) anyNA(value), NA)]
  vapply(known, function(value) format(value, digits = 4L, big.mark = ","), "")
}
