# Simulated screens for the tests of the verbs, and what holds for the result of every model.

# Runs code under a fixed seed and generator, and leaves the generator of the session as it was.
with_fixed_seed <- function(seed, code) {
  had <- exists(".Random.seed", globalenv(), inherits = FALSE)
  old <- if (had) get(".Random.seed", globalenv())
  kind <- RNGkind()
  on.exit({
    do.call(RNGkind, as.list(kind))
    if (had) assign(".Random.seed", old, globalenv()) else rm(".Random.seed", envir = globalenv())
  })
  set.seed(seed, "Mersenne-Twister", "Inversion", "Rejection")
  code
}

as_counts <- function(x) methods::as(methods::as(methods::as(x, "CsparseMatrix"), "generalMatrix"), "dMatrix")

named_counts <- function(x) {
  dimnames(x) <- list(paste0("guide-", seq_len(nrow(x))), paste0("cell-", seq_len(ncol(x))))
  as_counts(x)
}

# 10 guides x 300 cells in three batches, with everything that occurs: uneven depth, ambient counts, cells with no, one, two
# guides, cells without any count, a guide in no cell, a guide in one cell, a guide of single UMIs only.
small_screen <- function(seed = 1) {
  with_fixed_seed(seed, {
    n_guides <- 10L
    n_cells <- 300L
    batch <- rep(c("a", "b", "c"), length.out = n_cells)
    depth <- exp(stats::rnorm(n_cells, 0, 0.6)) * c(a = 1, b = 1.5, c = 0.7)[batch]
    counts <- matrix(stats::rpois(n_guides * n_cells, rep(0.15 * depth, each = n_guides)), n_guides)
    carries <- matrix(stats::runif(n_guides * n_cells) < 0.16, n_guides)
    carries[8:10, ] <- FALSE
    counts <- counts + carries * stats::rnbinom(n_guides * n_cells, mu = rep(12 * depth, each = n_guides), size = 3)
    counts[8L, ] <- 0
    counts[9L, ] <- replace(numeric(n_cells), 5L, 7)
    counts[10L, ] <- pmin(counts[10L, ], 1)
    counts[, c(40L, 299L)] <- 0
    list(counts = named_counts(counts), batch = batch)
  })
}

# Trivially separable: about 90 % of the cells carry one guide with 5 + NB(mean 35, size 2) UMIs; the background is Poisson.
# `truth` holds the places of the true pairs in the matrix.
separable_screen <- function(n_cells, n_guides, background = 0.02, seed = 1) {
  with_fixed_seed(seed, {
    guide <- sample.int(n_guides, n_cells, TRUE)
    cell <- which(stats::runif(n_cells) < 0.9)
    guide <- guide[cell]
    n_ambient <- stats::rpois(1L, background * n_guides * n_cells)
    counts <- Matrix::sparseMatrix(
      i = c(guide, sample.int(n_guides, n_ambient, TRUE)),
      j = c(cell, sample.int(n_cells, n_ambient, TRUE)),
      x = c(5 + stats::rnbinom(length(cell), mu = 35, size = 2), rep(1, n_ambient)),
      dims = c(n_guides, n_cells),
      dimnames = list(paste0("guide-", seq_len(n_guides)), paste0("cell-", seq_len(n_cells)))
    )
    list(counts = counts, truth = cbind(guide, cell))
  })
}

all_models <- function() guide_models()$model
posterior_models <- function() with(guide_models(), model[confidence == "posterior" & rule != "single_stage"])
two_stage_models <- function() with(guide_models(), model[rule != "single_stage"])
single_stage_models <- function() with(guide_models(), model[rule == "single_stage"])

fit_statuses <- c("ok", "gated", "no_signal", "not_converged", "fewer_components")

# All that is documented of a guide_calls, whatever the model. `counts` is the dgCMatrix that was assigned.
expect_calls <- function(calls, counts, model) {
  expect_s3_class(calls, "guide_calls")
  expect_named(calls, c("cells", "pairs", "assigned", "counts", "fits", "screen", "model", "params", "version"))
  expect_identical(calls$model, model)
  expect_identical(calls$version, as.character(utils::packageVersion("kaichi")))
  expect_type(calls$params, "list")
  expect_identical(calls$counts, counts, label = model)

  types <- function(frame) vapply(frame, typeof, "")
  cells <- calls$cells
  expect_identical(class(cells), "data.frame")
  expect_identical(types(cells), c(
    cell_barcode = "character", guide_id = "character", umi_count = "integer", assignment_confidence = "double",
    is_unassigned = "logical", is_multi_infected = "logical", n_guides_detected = "integer", set_probability = "double"
  ))
  expect_identical(cells$cell_barcode, colnames(counts))
  expect_identical(attr(cells, "row.names"), seq_len(ncol(counts)))
  none <- cells$n_guides_detected == 0L
  expect_identical(cells$is_unassigned, none, label = model)
  expect_identical(cells$is_multi_infected, cells$n_guides_detected > 1L, label = model)
  expect_false(any(cells$is_unassigned & cells$is_multi_infected), label = model)
  for (column in c("guide_id", "umi_count", "assignment_confidence")) {
    expect_identical(is.na(cells[[column]]), none, label = paste(model, column))
  }

  pairs <- calls$pairs
  expect_identical(class(pairs), "data.frame")
  expect_identical(types(pairs), c(
    cell_barcode = "character", guide_id = "character", umi_count = "integer", assignment_confidence = "double"
  ))
  expect_false(anyNA(pairs), label = model)
  expect_true(all(pairs$assignment_confidence > 0 & pairs$assignment_confidence <= 1), label = model)
  guide <- match(pairs$guide_id, rownames(counts))
  cell <- match(pairs$cell_barcode, colnames(counts))
  expect_false(is.unsorted(order(cell, guide)), label = model)
  expect_identical(pairs$umi_count, as.integer(counts[cbind(guide, cell)]), label = model)
  expect_true(all(pairs$umi_count > 0L), label = model)
  expect_identical(tabulate(cell, ncol(counts)), cells$n_guides_detected, label = model)

  if (model %in% posterior_models()) {
    expect_true(all(cells$set_probability >= 0 & cells$set_probability <= 1), label = model)
  } else {
    expect_true(all(is.na(cells$set_probability)), label = model)
  }

  # The call that names the cell: the highest confidence, then the most UMIs, then the earliest guide.
  best <- order(cell, -pairs$assignment_confidence, -pairs$umi_count, guide)
  best <- best[!duplicated(cell[best])]
  expect_identical(cells$guide_id[cell[best]], pairs$guide_id[best], label = model)
  expect_identical(cells$umi_count[cell[best]], pairs$umi_count[best], label = model)
  expect_identical(cells$assignment_confidence[cell[best]], pairs$assignment_confidence[best], label = model)

  expect_s4_class(calls$assigned, "dgCMatrix")
  expect_true(methods::validObject(calls$assigned))
  expect_identical(dimnames(calls$assigned), dimnames(counts))
  expect_identical(calls$assigned@i + 1L, guide, label = model)
  expect_identical(rep(seq_len(ncol(counts)), diff(calls$assigned@p)), cell, label = model)
  expect_true(all(calls$assigned@x == 1), label = model)

  expect_fits(calls$fits, counts, model)
  expect_screen(calls$screen, calls$fits, model)
  if ("guide_id" %in% names(calls$fits)) {
    expect_identical(calls$fits$n_cells_called, tabulate(guide, nrow(counts)), label = model)
    least <- vapply(seq_len(nrow(counts)), function(g) {
      if (g %in% guide) min(pairs$umi_count[guide == g]) else NA_integer_
    }, 0L)
    expect_identical(calls$fits$min_umi_called, least, label = model)
    expect_type(calls$fits$warning, "character")
    expect_false(anyNA(calls$fits$warning), label = model)
    unfit <- calls$fits$status %in% c("gated", "no_signal", "not_converged")
    expect_true(all(calls$fits$warning[unfit] != ""), label = model)
    for (column in c("expected_cells", "expected_precision", "expected_recall", "separation")) {
      expect_type(calls$fits[[column]], "double")
      if (!model %in% posterior_models()) expect_true(all(is.na(calls$fits[[column]])), label = paste(model, column))
    }
    expect_identical(is.na(calls$fits$expected_precision), !model %in% posterior_models() | is.na(least), label = model)
  }
}

# What is learnt of the screen as a whole: nothing but by models that are fitted to all of it.
expect_screen <- function(screen, fits, model) {
  if (guide_models()$fitted_per[guide_models()$model == model] != "screen") return(expect_null(screen, label = model))
  expect_identical(class(screen), "data.frame")
  expect_identical(nrow(screen), 1L)
  expect_length(intersect(names(screen), names(fits)), 0L)
}

expect_fits <- function(fits, counts, model) {
  expect_identical(class(fits), "data.frame")
  expect_true(all(fits$status %in% fit_statuses), label = model)
  expect_type(fits$note, "character")
  expect_type(fits$n_cells, "integer")
  expect_false(anyNA(fits[c("status", "note", "n_cells")]), label = model)
  # Whatever is not well is said in words.
  expect_identical(fits$note != "", fits$status != "ok", label = model)
  if ("guide_id" %in% names(fits)) {
    expect_identical(fits$guide_id, rownames(counts), label = model)
    expect_identical(fits$n_cells, tabulate(counts@i + 1L, nrow(counts)), label = model)
  } else {
    expect_type(fits$batch, "character")
    expect_identical(sum(fits$n_cells), sum(Matrix::colSums(counts) > 0), label = model)
  }
  if ("log_lik" %in% names(fits)) {
    expect_type(fits$log_lik, "double")
    expect_type(fits$bic_gain, "double")
    expect_type(fits$iterations, "integer")
    expect_type(fits$converged, "logical")
    expect_true(all(is.finite(fits$log_lik[fits$status == "ok"])), label = model)
    expect_true(all(is.na(fits$log_lik[fits$status == "gated"])), label = model)
  }
  shares <- fits[grepl("^share_", names(fits))]
  if (ncol(shares) > 0L) {
    fitted <- fits$status %in% c("ok", "not_converged", "fewer_components")
    expect_equal(rowSums(shares[fitted, , drop = FALSE], na.rm = TRUE), rep(1, sum(fitted)), ignore_attr = TRUE, label = model)
  }
}

# Places of pairs called, as a comparable set.
called <- function(calls) sort(paste(calls$pairs$cell_barcode, calls$pairs$guide_id))
