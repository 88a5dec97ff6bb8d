test_that("guide_models() has one row per model and its documented columns", {
  models <- guide_models()
  expect_identical(vapply(models, typeof, ""), c(
    model = "character", family = "character", fitted_per = "character", uses_depth = "logical", uses_batch = "logical",
    uses_covariate = "logical", confidence = "character", rule = "character", cut = "double", about = "character", when = "character"
  ))
  known <- c(
    "umi", "max", "ratio", "quantiles", "poisson_gauss", "poisson", "neg_binomial", "binomial", "gauss", "beta2", "beta3"
  )
  expect_true(all(known %in% models$model))
  expect_false(anyDuplicated(models$model) > 0L)
  expect_match(models$model, "^[a-z][a-z0-9_]*$")
  expect_true(all(models$family %in% c("threshold", "rank", "mixture")))
  expect_true(all(models$rule %in% c("single_stage", "min_confidence", "quantile")))
  expect_identical(is.na(models$cut), models$rule == "single_stage")
  expect_true(all(models$cut > 0 & models$cut < 1, na.rm = TRUE))
  expect_false(anyNA(models[setdiff(names(models), "cut")]))
  expect_true(all(nzchar(models$about) & nzchar(models$when)))
  expect_identical(models$model[models$rule == "single_stage"], c("umi", "max", "ratio"))
  cut <- stats::setNames(models$cut, models$model)
  expect_identical(cut[["poisson_gauss"]], 0.8)
  expect_identical(cut[["beta2"]], 0.5)
  expect_identical(cut[["beta3"]], 0.5)
  expect_identical(cut[["quantiles"]], 0.05)
})

test_that("what the registry says of depth and batch is so", {
  screen <- small_screen()
  # A guide in every cell, whose counts change the depth of the cells and nothing else.
  extra <- matrix(seq_len(ncol(screen$counts)) %% 7 * 40, 1L, dimnames = list("extra", colnames(screen$counts)))
  deeper <- rbind(screen$counts, as_counts(extra))
  guides <- rownames(screen$counts)
  for (at in which(guide_models()$model != "max")) {
    info <- guide_models()[at, ]
    alone <- assign_guides(screen$counts, info$model)
    beside <- assign_guides(deeper, info$model)
    same <- identical(as.matrix(alone$assigned), as.matrix(beside$assigned)[guides, ])
    expect_identical(same, !info$uses_depth, label = info$model)
    batched <- assign_guides(screen$counts, info$model, batch = screen$batch)
    expect_identical(identical(batched$fits, alone$fits), !info$uses_batch, label = info$model)
    told <- function() assign_guides(screen$counts, info$model, covariate = seq_len(ncol(screen$counts)))
    if (info$uses_covariate) {
      of_fit <- c("fits", "screen")
      expect_false(identical(told()[of_fit], alone[of_fit]), label = info$model)
    } else {
      expect_error(told(), "covariate", class = "kaichi_error_argument")
    }
  }
})

test_that("an unknown model is an error with the nearest name", {
  counts <- small_screen()$counts
  expect_snapshot({
    error_text("model", assign_guides(counts, "poisson-gaus"))
    error_text("model", assign_guides(counts, "Gauss"))
    error_text("model", assign_guides(counts, "neg binomial"))
    error_text("model", assign_guides(counts, "100%s%n"))
    error_text("model", assign_guides(counts, ""))
    error_text("model", assign_guides(counts, NA_character_))
    error_text("model", assign_guides(counts, c("umi", "max")))
    error_text("model", assign_guides(counts, 3))
    error_text("model", assign_guides(counts, NULL))
    error_text("model", score_guides(counts, "poison"))
  }, transform = function(lines) sub("The models are .*", "The models are ...", lines))
  condition <- tryCatch(assign_guides(counts, "poison"), kaichi_error = identity)
  for (model in guide_models()$model) expect_match(conditionMessage(condition), model, fixed = TRUE)
  expect_null(conditionCall(condition))
})

test_that("model_control() holds the defaults of the registry and what was changed", {
  control <- model_control()
  expect_s3_class(control, "model_control")
  expect_identical(control$umi_threshold, 5)
  expect_identical(control$min_fraction, 0.3)
  expect_identical(unclass(control)[names(rust_control())], rust_control())
  changed <- model_control(umi_threshold = 3, min_fraction = 0.5, starts = 2L, iterations = 10, tolerance = 1e-3, gates = c(min_cells = 9))
  expect_identical(unclass(changed), list(
    umi_threshold = 3, min_fraction = 0.5, starts = 2, iterations = 10, tolerance = 1e-3, gate_cells = 9, gate_count = 2
  ))
})

test_that("the control reaches the models", {
  counts <- small_screen()$counts
  n_cells <- as.integer(Matrix::rowSums(counts > 0))
  gated <- assign_guides(counts, control = model_control(gates = c(min_cells = 120)))$fits
  expect_true(all(gated$status[n_cells < 120] == "gated"))
  expect_false(any(gated$status[n_cells >= 120 & gated$guide_id != "guide-10"] == "gated"))
  largest <- vapply(seq_len(nrow(counts)), function(g) max(counts[g, ]), 0)
  gated <- assign_guides(counts, "gauss", control = model_control(gates = c(min_count = 1000)))
  expect_true(all(gated$fits$status[largest < 1000] == "gated"))
  expect_match(gated$fits$note[1L], "at least 1000 is needed")
  expect_identical(nrow(gated$pairs), 0L)
  short <- assign_guides(counts, "poisson", control = model_control(iterations = 1))
  expect_true(all(short$fits$iterations <= 1L, na.rm = TRUE))
  expect_true("not_converged" %in% short$fits$status)
  expect_match(short$fits$note[short$fits$status == "not_converged"], "1 iteration")
  expect_identical(short$params$iterations, 1)
})

test_that("settings out of range are errors", {
  expect_snapshot({
    error_text("argument", model_control(umi_threshold = 0))
    error_text("argument", model_control(umi_threshold = "5"))
    error_text("argument", model_control(min_fraction = 1.2))
    error_text("argument", model_control(starts = 0))
    error_text("argument", model_control(starts = 2.5))
    error_text("argument", model_control(iterations = NA))
    error_text("argument", model_control(tolerance = 0))
    error_text("argument", model_control(gates = 3))
    error_text("argument", model_control(gates = c(min_cell = 3)))
    error_text("argument", model_control(gates = c(min_cells = -1)))
    error_text("argument", model_control(gates = c(min_count = NA)))
    error_text("argument", model_control(gates = list(min_cells = 2)))
  })
})
