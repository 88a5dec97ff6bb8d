test_that("scores have the documented shape, for every two-stage model", {
  screen <- small_screen()
  for (model in two_stage_models()) {
    scores <- score_guides(screen$counts, model, batch = screen$batch)
    expect_s3_class(scores, "guide_scores")
    expect_named(
      scores, c("posterior", "log_odds", "counts", "fits", "screen", "cells", "model", "params", "version")
    )
    expect_identical(scores$counts, screen$counts)
    expect_s4_class(scores$posterior, "dgCMatrix")
    expect_identical(scores$posterior@i, screen$counts@i, label = model)
    expect_identical(scores$posterior@p, screen$counts@p, label = model)
    expect_identical(dimnames(scores$posterior), dimnames(screen$counts))
    expect_true(all(scores$posterior@x >= 0 & scores$posterior@x <= 1), label = model)
    expect_fits(scores$fits, screen$counts, model)
    expect_screen(scores$screen, scores$fits, model)
    expect_identical(scores$model, model)
    expect_identical(scores$version, as.character(utils::packageVersion("kaichi")))
    expect_identical(scores$params, c(unclass(model_control()), list(batches = c("a", "b", "c"), covariate = FALSE)))
  }
})

test_that("guides without a fit score 0 and say why", {
  screen <- small_screen()
  for (model in with(guide_models(), model[family == "mixture" & fitted_per == "guide"])) {
    scores <- score_guides(screen$counts, model)
    status <- stats::setNames(scores$fits$status, scores$fits$guide_id)
    expect_identical(unname(status[c("guide-8", "guide-9", "guide-10")]), rep("gated", 3L), label = model)
    expect_true("ok" %in% status[paste0("guide-", 1:7)], label = model)
    unfitted <- scores$fits$status %in% c("gated", "no_signal")
    expect_true(all(scores$posterior[unfitted, ] == 0), label = model)
  }
})

test_that("one population is no signal", {
  counts <- named_counts(with_fixed_seed(7, matrix(stats::rpois(2000, 3), 4)))
  # Guides of one background each: a mixture of counts has nothing to find.
  for (model in c("poisson_gauss", "poisson", "neg_binomial", "binomial")) {
    scores <- score_guides(counts, model)
    expect_identical(scores$fits$status, rep("no_signal", 4L), label = model)
    expect_true(all(scores$fits$bic_gain <= 0 | grepl("above the background", scores$fits$note)), label = model)
    expect_true(all(scores$posterior@x == 0), label = model)
  }
})

test_that("log odds are those of the posterior, finite, and tell apart what rounds to 1", {
  for (seed in 1:2) {
    # Counts up to thousands, whose posteriors round to 1.
    sim <- simulate_guides("easy", n_cells = 400, n_guides = 8, signal_mean = 10^(seed + 0.5), seed = seed)
    lanes <- rep(c("x", "y"), 200)
    for (model in posterior_models()) {
      for (scores in list(score_guides(sim$counts, model), score_guides(sim$counts, model, batch = lanes))) {
        label <- paste(model, seed)
        expect_s4_class(scores$log_odds, "dgCMatrix")
        expect_identical(scores$log_odds@i, sim$counts@i)
        expect_identical(scores$log_odds@p, sim$counts@p)
        expect_identical(dimnames(scores$log_odds), dimnames(sim$counts))
        log_odds <- scores$log_odds@x
        posterior <- scores$posterior@x
        expect_true(all(is.finite(log_odds) & abs(log_odds) <= 1e4), label = label)
        expect_lt(max(abs(stats::plogis(log_odds) - posterior)), 1e-12, label = label)
        # The last digit of a posterior is a matter of rounding.
        expect_gt(min(0, diff(posterior[order(log_odds)])), -1e-15, label = label)
        # A Beta near 1 has only some nats between its components.
        if (!startsWith(model, "beta") && any(posterior == 1)) expect_gt(length(unique(log_odds[posterior == 1])), 20L, label = label)
      }
    }
  }
  expect_null(score_guides(small_screen()$counts, "quantiles")$log_odds)
})

test_that("the score of quantiles is the share of the cell", {
  counts <- small_screen()$counts
  scores <- score_guides(counts, "quantiles")
  expect_identical(scores$posterior@x, counts@x / rep(unname(Matrix::colSums(counts)), diff(counts@p)))
})

test_that("the posterior does not fall as the count rises, where it depends on the count alone", {
  counts <- small_screen()$counts
  for (model in c("poisson_gauss", "gauss")) {
    posterior <- score_guides(counts, model)$posterior
    for (guide in rownames(counts)) {
      y <- counts[guide, ]
      seen <- y > 0
      expect_false(is.unsorted(posterior[guide, seen][order(y[seen])]), label = paste(model, guide))
    }
  }
})

test_that("the signal lies above the background", {
  screen <- small_screen()
  fits <- function(model, ...) {
    fits <- score_guides(screen$counts, model, ...)$fits
    fits[fits$status == "ok", ]
  }
  with(fits("poisson_gauss"), expect_true(all(exp(mu + sigma^2 / 2) > lambda)))
  with(fits("gauss"), expect_true(all(mean_signal > mean_background & sd > 0)))
  for (model in c("poisson", "neg_binomial", "binomial")) {
    expect_true(all(fits(model)$b1 > 0), label = model)
    batched <- fits(model, batch = screen$batch)
    expect_true(all(batched$b1 > 0), label = model)
    expect_true(all(c("gamma_a", "gamma_b", "gamma_c") %in% names(batched)), label = model)
  }
})

test_that("the number of threads changes no score", {
  screen <- small_screen()
  for (model in two_stage_models()) {
    one <- score_guides(screen$counts, model, batch = screen$batch, n_jobs = 1)
    expect_identical(score_guides(screen$counts, model, batch = screen$batch, n_jobs = 2), one, label = model)
  }
})

test_that("permuting cells or guides permutes the scores", {
  screen <- small_screen()
  counts <- screen$counts
  cells <- with_fixed_seed(2, sample(ncol(counts)))
  guides <- with_fixed_seed(3, sample(nrow(counts)))
  for (model in two_stage_models()) {
    scores <- as.matrix(score_guides(counts, model, batch = screen$batch)$posterior)
    permuted <- as.matrix(score_guides(counts[guides, cells], model, batch = screen$batch[cells])$posterior)
    expect_equal(permuted, scores[guides, cells], tolerance = 1e-5, label = model)
  }
})

test_that("a file gives the scores of its matrix", {
  path <- test_path("fixtures", "anndata-0.12.19-csc.h5ad")
  counts <- read_guides(path)
  for (model in two_stage_models()) {
    expect_identical(
      score_guides(path, model, batch = "lane"),
      score_guides(counts, model, batch = rep(c("1", "2", "3"), 4), guides = read_guide_file(path)$guides)
    )
  }
})

test_that("scores print in a few lines and survive saveRDS", {
  scores <- score_guides(separable_screen(1000, 5)$counts)
  expect_snapshot({
    scores
    score_guides(small_screen()$counts, "quantiles")
  })
  path <- tempfile(fileext = ".rds")
  on.exit(unlink(path))
  saveRDS(scores, path)
  expect_identical(readRDS(path), scores)
  expect_identical(decide_guides(readRDS(path)), decide_guides(scores))
})

test_that("single-stage models are refused with the way out", {
  counts <- small_screen()$counts
  expect_identical(single_stage_models(), c("umi", "max", "ratio"))
  expect_snapshot({
    error_text("model", score_guides(counts, "umi"))
    error_text("model", score_guides(counts, "max"))
    error_text("model", score_guides(counts, "ratio"))
  })
})

test_that("a covariate that drives the ambient UMIs helps, that of other cells does not harm", {
  sim <- simulate_guides(
    "easy", n_cells = 3000, n_guides = 6, ambient_mean = 3, ambient_size = Inf, ambient_cell_size = 0.5, signal_mean = 6,
    capture_spread = 0, seed = 2
  )
  f1 <- function(scores) {
    called <- decide_guides(scores)$assigned
    carried <- Matrix::sparseMatrix(
      match(sim$truth$guide_id, rownames(called)), match(sim$truth$cell_barcode, colnames(called)), dims = dim(called)
    )
    2 * sum(called * carried) / (sum(called) + sum(carried))
  }
  rna <- pmax(sim$cells$ambient, 1e-3)
  alone <- score_guides(sim$counts, "ambient")
  told <- score_guides(sim$counts, "ambient", covariate = rna)
  misled <- score_guides(sim$counts, "ambient", covariate = rna[c(1001:3000, 1:1000)])
  expect_identical(c(alone$screen$exposure_slope, alone$screen$capture_slope), c(NA_real_, NA_real_))
  expect_equal(told$screen$exposure_slope, 1, tolerance = 0.15)
  expect_gt(f1(told), f1(alone) + 0.003)
  expect_gt(told$screen$log_lik, alone$screen$log_lik + 50)
  expect_lt(misled$screen$exposure_slope, 0.1)
  expect_lt(abs(f1(misled) - f1(alone)), 0.003)
  expect_true(told$params$covariate)
})

test_that("arguments that are wrong say so", {
  counts <- small_screen()$counts
  expect_snapshot({
    error_text("argument", score_guides(counts, min_confidence = 0.9))
    error_text("argument", score_guides(counts, "gauss", 4))
    error_text("argument", score_guides(counts, n_jobs = -2))
    error_text("argument", score_guides(counts, n_jobs = NA))
    error_text("argument", score_guides(counts, control = NULL))
    error_text("batch", score_guides(counts, batch = 1:3))
  })
})
