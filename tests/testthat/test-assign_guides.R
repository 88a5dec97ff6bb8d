test_that("every column of the calls is what the documentation says, for every model", {
  screen <- small_screen()
  for (model in all_models()) {
    expect_calls(assign_guides(screen$counts, model), screen$counts, model)
    expect_calls(assign_guides(screen$counts, model, batch = screen$batch, min_umi = 3), screen$counts, model)
  }
})

test_that("the default is poisson_gauss at the cut of the registry", {
  counts <- small_screen()$counts
  expect_identical(assign_guides(counts), assign_guides(counts, "poisson_gauss"))
  models <- guide_models()
  for (at in which(models$rule == "min_confidence")) {
    model <- models$model[at]
    expect_identical(assign_guides(counts, model), assign_guides(counts, model, min_confidence = models$cut[at]))
    expect_identical(assign_guides(counts, model)$params$min_confidence, models$cut[at])
  }
})

test_that("the models without a fit follow their rules", {
  counts <- named_counts(matrix(c(
    5, 4, 0,
    6, 6, 1,
    0, 0, 0,
    1, 0, 0,
    3, 2, 2,
    2, 3, 2
  ), 3))
  guides <- function(...) assign_guides(counts, ...)$cells$guide_id
  expect_identical(guides("umi"), c("guide-1", "guide-1", NA, NA, NA, NA))
  expect_identical(assign_guides(counts, "umi")$cells$n_guides_detected, c(1L, 2L, 0L, 0L, 0L, 0L))
  expect_identical(guides("umi", control = model_control(umi_threshold = 3)), c("guide-1", "guide-1", NA, NA, "guide-1", "guide-2"))
  # A tie for the most UMIs is nobody's.
  expect_identical(guides("max"), c("guide-1", NA, NA, "guide-1", "guide-1", "guide-2"))
  expect_identical(guides("max", min_umi = 4), c("guide-1", rep(NA, 5)))
  expect_identical(guides("ratio"), c("guide-1", NA, NA, "guide-1", "guide-1", "guide-2"))
  # 3 / 7 does not exceed 3 / 7.
  expect_identical(guides("ratio", control = model_control(min_fraction = 3 / 7)), c("guide-1", NA, NA, "guide-1", NA, NA))
  expect_identical(assign_guides(counts, "ratio")$pairs$assignment_confidence, c(5 / 9, 1, 3 / 7, 3 / 7))
})

test_that("quantiles calls the floor of the share of the cells with the guide, by share of the cell", {
  counts <- small_screen()$counts
  depth <- Matrix::colSums(counts)
  for (quantile in c(0, 0.05, 0.29, 0.5, 1)) {
    calls <- assign_guides(counts, "quantiles", quantile = quantile)
    for (guide in rownames(counts)) {
      y <- counts[guide, ]
      places <- which(y > 0)
      places <- places[order(-(y / depth)[places], -y[places], places)]
      expected <- colnames(counts)[sort(utils::head(places, floor(quantile * length(places) + 1e-9)))]
      expect_identical(calls$pairs$cell_barcode[calls$pairs$guide_id == guide], expected)
    }
    expect_identical(calls$params$quantile, quantile)
  }
  expect_identical(assign_guides(counts, "quantiles"), assign_guides(counts, "quantiles", quantile = 0.05))
})

test_that("quantiles can be decided by a share of the cell instead", {
  counts <- small_screen()$counts
  calls <- assign_guides(counts, "quantiles", min_confidence = 0.5)
  expect_identical(as.matrix(calls$assigned), (t(t(as.matrix(counts)) / pmax(1, Matrix::colSums(counts))) >= 0.5) * 1)
})

test_that("min_umi drops calls with fewer UMIs and no others", {
  counts <- small_screen()$counts
  for (model in all_models()) {
    all <- assign_guides(counts, model)
    some <- assign_guides(counts, model, min_umi = 4)
    kept <- all$pairs[all$pairs$umi_count >= 4, ]
    rownames(kept) <- NULL
    expect_identical(some$pairs, kept, label = model)
    expect_identical(some$params$min_umi, 4)
    expect_identical(nrow(assign_guides(counts, model, min_umi = 1e9)$pairs), 0L)
  }
})

test_that("a higher min_confidence calls less, and 0 calls no pair that scores 0", {
  counts <- small_screen()$counts
  for (model in with(guide_models(), model[rule == "min_confidence"])) {
    at <- function(cut) called(assign_guides(counts, model, min_confidence = cut))
    cuts <- lapply(c(0, 0.5, 0.99, 1), at)
    for (k in 2:4) expect_true(all(cuts[[k]] %in% cuts[[k - 1L]]), label = model)
    positive <- score_guides(counts, model)$posterior@x > 0
    expect_identical(length(cuts[[1L]]), sum(positive), label = model)
  }
})

test_that("every way to hold a matrix gives the same calls", {
  screen <- small_screen()
  counts <- screen$counts
  with_zeros <- counts
  with_zeros@x[c(1, 50)] <- 0
  dropped <- Matrix::drop0(with_zeros)
  integers <- as.matrix(counts)
  storage.mode(integers) <- "integer"
  others <- list(
    as.matrix(counts), integers, methods::as(counts, "TsparseMatrix"), methods::as(counts, "RsparseMatrix"),
    methods::as(as.matrix(counts), "denseMatrix")
  )
  if (requireNamespace("DelayedArray", quietly = TRUE)) others <- c(others, DelayedArray::DelayedArray(as.matrix(counts)))
  for (model in all_models()) {
    expected <- assign_guides(counts, model, batch = screen$batch)
    for (x in others) expect_identical(assign_guides(x, model, batch = screen$batch), expected)
    expect_identical(assign_guides(with_zeros, model), assign_guides(dropped, model), label = model)
  }
})

test_that("logical and pattern matrices are counts of one", {
  counts <- small_screen()$counts
  ones <- counts
  ones@x[] <- 1
  expected <- assign_guides(ones, "max")
  expect_identical(assign_guides(as.matrix(counts) > 0, "max"), expected)
  expect_identical(assign_guides(methods::as(counts, "nMatrix"), "max"), expected)
})

test_that("a matrix built by hand with unsorted rows is put in order", {
  counts <- small_screen()$counts
  shuffled <- counts
  for (cell in seq_len(ncol(counts))) {
    at <- seq_len(diff(counts@p)[cell]) + counts@p[cell]
    shuffled@i[at] <- rev(counts@i[at])
    shuffled@x[at] <- rev(counts@x[at])
  }
  for (model in all_models()) expect_identical(assign_guides(shuffled, model), assign_guides(counts, model), label = model)
})

test_that("a file gives the calls of its matrix", {
  path <- test_path("fixtures", "anndata-0.10.9-csr.h5ad")
  counts <- read_guides(path)
  guides <- read_guide_file(path)$guides
  lanes <- rep(c("1", "2", "3"), 4)
  for (model in all_models()) {
    # The file has targets, the matrix gets them.
    from_matrix <- function(counts, ...) assign_guides(counts, model, guides = guides, ...)
    expect_identical(assign_guides(path, model), from_matrix(counts), label = model)
    expect_identical(assign_guides(path, model, batch = "lane"), from_matrix(counts, batch = lanes), label = model)
    expect_identical(
      assign_guides(path, model, layer = "doubled"), from_matrix(read_guides(path, layer = "doubled")), label = model
    )
  }
})

test_that("SingleCellExperiment and Seurat objects get the calls of their counts, for every model", {
  screen <- small_screen()
  sce <- seurat <- NULL
  if (requireNamespace("SingleCellExperiment", quietly = TRUE)) {
    sce <- SingleCellExperiment::SingleCellExperiment(list(counts = screen$counts))
    SummarizedExperiment::colData(sce)$lane <- screen$batch
  }
  if (requireNamespace("SeuratObject", quietly = TRUE)) {
    seurat <- suppressWarnings(SeuratObject::CreateSeuratObject(screen$counts, assay = "GDO"))
    seurat$lane <- screen$batch
  }
  if (is.null(sce) && is.null(seurat)) skip("neither SingleCellExperiment nor SeuratObject is installed")
  for (model in all_models()) {
    cells <- assign_guides(screen$counts, model, batch = screen$batch)$cells
    columns <- setdiff(names(cells), "cell_barcode")
    if (!is.null(sce)) {
      got <- suppressMessages(assign_guides(sce, model, batch = "lane"))
      for (column in columns) expect_identical(got[[column]], cells[[column]], label = paste(model, column, "of the experiment"))
    }
    if (!is.null(seurat)) {
      got <- suppressMessages(assign_guides(seurat, model, batch = "lane"))
      for (column in columns) expect_identical(got[[column]][[1L]], cells[[column]], label = paste(model, column, "of Seurat"))
    }
  }
})

test_that("the number of threads changes nothing", {
  screen <- small_screen()
  for (model in all_models()) {
    one <- assign_guides(screen$counts, model, batch = screen$batch, n_jobs = 1)
    expect_identical(assign_guides(screen$counts, model, batch = screen$batch, n_jobs = 2), one, label = model)
    expect_identical(assign_guides(screen$counts, model, batch = screen$batch, n_jobs = NULL), one, label = model)
  }
})

test_that("permuting cells or guides permutes the calls", {
  screen <- small_screen()
  counts <- screen$counts
  cells <- with_fixed_seed(2, sample(ncol(counts)))
  guides <- with_fixed_seed(3, sample(nrow(counts)))
  # Among equal shares, quantiles takes the earlier cell: a rule about order.
  for (model in setdiff(all_models(), "quantiles")) {
    calls <- assign_guides(counts, model, batch = screen$batch)
    by_cell <- assign_guides(counts[, cells], model, batch = screen$batch[cells])
    expect_identical(called(by_cell), called(calls), label = model)
    expect_identical(by_cell$cells$guide_id, calls$cells$guide_id[cells], label = model)
    # Sums in another order differ in the last digits.
    expect_equal(
      by_cell$cells$assignment_confidence, calls$cells$assignment_confidence[cells], tolerance = 1e-5, label = model
    )
    by_guide <- assign_guides(counts[guides, ], model, batch = screen$batch)
    expect_identical(called(by_guide), called(calls), label = model)
  }
})

test_that("the random numbers of the session are neither used nor moved", {
  counts <- small_screen()$counts
  set.seed(1)
  before <- .Random.seed
  first <- assign_guides(counts)
  expect_identical(.Random.seed, before)
  set.seed(2)
  expect_identical(assign_guides(counts), first)
})

test_that("as.data.frame() is the table of cells", {
  calls <- assign_guides(small_screen()$counts, "umi")
  expect_identical(as.data.frame(calls), calls$cells)
  named <- as.data.frame(calls, row.names = calls$cells$cell_barcode)
  expect_identical(rownames(named), calls$cells$cell_barcode)
  expect_identical(named$guide_id, calls$cells$guide_id)
})

test_that("summary() counts what was called", {
  counts <- small_screen()$counts
  for (model in all_models()) {
    calls <- assign_guides(counts, model)
    s <- summary(calls)
    expect_s3_class(s, "summary.guide_calls")
    expect_identical(sum(s$n_guides_per_cell), ncol(counts))
    expect_identical(s$n_guides_per_cell[["0"]], sum(calls$cells$is_unassigned))
    expect_identical(sum(s$n_guides_per_cell * as.integer(names(s$n_guides_per_cell))), nrow(calls$pairs))
    expect_identical(s$single_umi_calls, sum(calls$pairs$umi_count == 1L))
    guides <- s$guides
    expect_identical(vapply(guides, typeof, ""), c(
      guide_id = "character", n_cells = "integer", n_cells_called = "integer", n_cells_single = "integer",
      median_umi = "double", mean_confidence = "double", expected_precision = "double", expected_recall = "double",
      warning = "character", status = "character", note = "character"
    ))
    expect_identical(guides$guide_id, rownames(counts))
    expect_identical(guides$n_cells, as.integer(Matrix::rowSums(counts > 0)))
    expect_identical(guides$n_cells_called, as.integer(Matrix::rowSums(calls$assigned)))
    alone <- Matrix::colSums(calls$assigned) == 1
    expect_identical(guides$n_cells_single, as.integer(Matrix::rowSums(calls$assigned[, alone])))
    for (g in which(guides$n_cells_called > 0L)) {
      of <- calls$pairs$guide_id == guides$guide_id[g]
      expect_equal(guides$median_umi[g], stats::median(calls$pairs$umi_count[of]))
      expect_equal(guides$mean_confidence[g], mean(calls$pairs$assignment_confidence[of]))
    }
    never <- guides$n_cells_called == 0L
    expect_true(all(is.na(guides$median_umi[never])))
    expect_false(any(is.nan(guides$mean_confidence)))
  }
})

test_that("calls and their summary print in a few lines", {
  screen <- separable_screen(1000, 5)
  counts <- small_screen()$counts
  none <- assign_guides(counts, "umi", min_umi = 1e9)
  expect_snapshot({
    assign_guides(counts, "umi")
    assign_guides(screen$counts, "max", min_umi = 2)
    assign_guides(screen$counts, "quantiles")
    assign_guides(screen$counts, "gauss", batch = rep(1:2, 500))$model
    none
    summary(assign_guides(counts, "umi"))
    summary(assign_guides(counts, "max"))
    summary(none)
  })
  printed <- utils::capture.output(value <- withVisible(print(none)))
  expect_false(value$visible)
  expect_identical(value$value, none)
})

test_that("the fits of a mixture are counted in print, and the guides to look at are listed", {
  calls <- assign_guides(small_screen()$counts)
  printed <- utils::capture.output(print(calls))
  status <- table(calls$fits$status)
  line <- grep("^  fits: ", printed, value = TRUE)
  expect_length(line, 1L)
  for (name in names(status)) expect_match(line, paste(status[[name]], name), fixed = TRUE)
  printed <- utils::capture.output(print(summary(calls)))
  bad <- calls$fits$guide_id[calls$fits$status != "ok"]
  expect_true(all(c("guide-8", "guide-9", "guide-10") %in% bad))
  for (guide in bad) expect_true(any(startsWith(trimws(printed), paste0(guide, " "))), label = guide)
})

test_that("calls survive saveRDS, also in a session without kaichi", {
  path <- tempfile(fileext = ".rds")
  script <- tempfile(fileext = ".R")
  on.exit(unlink(c(path, script)))
  calls <- assign_guides(small_screen()$counts, "poisson", batch = small_screen()$batch)
  saveRDS(calls, path)
  expect_identical(readRDS(path), calls)
  writeLines(c(
    sprintf("calls <- readRDS(%s)", deparse(normalizePath(path, "/"))),
    "stopifnot(!isNamespaceLoaded(\"kaichi\"))",
    "library(Matrix)",
    "cat(calls$model, nrow(calls$pairs), sum(calls$assigned), sum(calls$counts), class(calls$fits))"
  ), script)
  seen <- system2(file.path(R.home("bin"), "Rscript"), c("--vanilla", script), stdout = TRUE, stderr = FALSE)
  expect_identical(seen, paste("poisson", nrow(calls$pairs), nrow(calls$pairs), sum(calls$counts), "data.frame"))
})

test_that("saved calls print and convert in a fresh session with kaichi", {
  skip_if_not_installed("kaichi")
  path <- tempfile(fileext = ".rds")
  script <- tempfile(fileext = ".R")
  on.exit(unlink(c(path, script)))
  calls <- assign_guides(small_screen()$counts, "umi")
  saveRDS(calls, path)
  writeLines(c(
    "library(kaichi)",
    sprintf("calls <- readRDS(%s)", deparse(normalizePath(path, "/"))),
    "print(calls)",
    "cat(dim(as.data.frame(calls)))"
  ), script)
  libraries <- paste0("R_LIBS=", paste(.libPaths(), collapse = .Platform$path.sep))
  seen <- system2(
    file.path(R.home("bin"), "Rscript"), c("--vanilla", script), stdout = TRUE, stderr = FALSE, env = libraries
  )
  expect_identical(seen, c(utils::capture.output(print(calls)), "300 8"))
})

test_that("per-guide mixtures recover trivially separable pairs, with and without background", {
  mixtures <- with(guide_models(), model[family == "mixture" & fitted_per == "guide"])
  expect_true(all(c("poisson_gauss", "poisson", "neg_binomial", "binomial", "gauss") %in% mixtures))
  for (background in c(0.02, 0)) {
    for (size in list(c(1000, 5), c(1000, 10), c(5000, 20))) {
      screen <- separable_screen(size[1L], size[2L], background)
      for (model in mixtures) {
        what <- paste(model, size[1L], "cells,", size[2L], "guides, background", background)
        calls <- assign_guides(screen$counts, model)
        recalled <- mean(calls$assigned[screen$truth])
        expect_gte(recalled, 0.99, label = paste("recall of", what))
        # Calls of many UMIs are the planted ones; single UMIs in cells with nothing else are another matter.
        many <- calls$pairs$umi_count >= 5
        expect_lte(sum(many), nrow(screen$truth), label = what)
      }
    }
  }
})

test_that("and in a large screen", {
  skip_on_cran()
  screen <- separable_screen(20000, 500)
  for (model in c("poisson_gauss", "poisson", "neg_binomial", "binomial", "gauss")) {
    recalled <- mean(assign_guides(screen$counts, model)$assigned[screen$truth])
    expect_gte(recalled, 0.99, label = paste("recall of", model))
  }
})

test_that("a guide in most cells is found in them", {
  # Its background is what the other cells show.
  screen <- with_fixed_seed(4, {
    carries <- stats::runif(1000) < 0.6
    others <- matrix(stats::rpois(3000, 0.02), 3)
    other <- cbind(sample.int(3L, 1000, TRUE), 1:1000)[!carries & stats::runif(1000) < 0.8, ]
    others[other] <- others[other] + 5 + stats::rnbinom(nrow(other), mu = 35, size = 2)
    common <- stats::rpois(1000, 0.05) + carries * (5 + stats::rnbinom(1000, mu = 35, size = 2))
    list(counts = named_counts(rbind(common, others)), carries = carries)
  })
  for (model in with(guide_models(), model[family == "mixture" & fitted_per == "guide"])) {
    calls <- assign_guides(screen$counts, model)
    expect_calls(calls, screen$counts, model)
    expect_gte(mean(calls$assigned[1L, screen$carries]), 0.99, label = model)
    # Models of the share call what is alone in its cell; those of the count do not.
    expect_lte(sum(calls$assigned[1L, !screen$carries] * (screen$counts[1L, !screen$carries] > 3)), 0, label = model)
  }
})

test_that("hard inputs give results, for every model", {
  one_guide <- separable_screen(300, 1)$counts
  two_guides <- separable_screen(300, 2)$counts
  hard <- list(
    one_guide = one_guide,
    two_guides = two_guides,
    all_positive = named_counts(with_fixed_seed(5, matrix(1 + stats::rpois(600, 5), 3))),
    all_equal = named_counts(matrix(4, 3, 50)),
    all_ones = named_counts(matrix(1, 3, 50)),
    no_positive = named_counts(matrix(0, 3, 50)),
    one_cell = named_counts(matrix(c(0, 1, 30), 3)),
    one_empty_cell = named_counts(matrix(0, 3, 1)),
    one_pair = named_counts(matrix(7, 1, 1)),
    two_cells = named_counts(matrix(c(9, 0, 0, 9), 2)),
    one_huge = named_counts(replace(as.matrix(two_guides), 1L, 2^31 - 1)),
    all_huge = named_counts(matrix(2^31 - 1, 2, 20)),
    more_guides_than_cells = named_counts(with_fixed_seed(6, matrix(stats::rpois(500, 0.5) * 7, 100)))
  )
  for (name in names(hard)) {
    counts <- hard[[name]]
    for (model in all_models()) {
      # ambient takes minutes where every count is near 2^31.
      if (model == "ambient" && name == "all_huge") next
      label <- paste(model, name)
      expect_calls(assign_guides(counts, model), counts, model)
      calls <- assign_guides(counts, model, batch = rep(c("x", "y"), length.out = ncol(counts)))
      expect_identical(calls$cells$cell_barcode, colnames(counts), label = label)
      expect_output(print(calls), "<guide_calls>", label = label)
      expect_output(print(summary(calls)), "Guides per cell", label = label)
    }
  }
})

test_that("a library of one or two guides is assigned", {
  for (n_guides in 1:2) {
    screen <- separable_screen(1000, n_guides)
    for (model in with(guide_models(), model[family == "mixture" & !uses_depth])) {
      expect_gte(mean(assign_guides(screen$counts, model)$assigned[screen$truth]), 0.99, label = paste(model, n_guides))
    }
  }
})

test_that("a batch may hold a single cell, or cells without counts only", {
  screen <- small_screen()
  batch <- replace(screen$batch, c(40L, 299L), "empty")
  batch[7L] <- "lonely"
  for (model in all_models()) expect_calls(assign_guides(screen$counts, model, batch = batch), screen$counts, model)
})

test_that("batch may be text, a factor, a number or a logical, with or without unused levels", {
  screen <- small_screen()
  number <- match(screen$batch, c("a", "b", "c"))
  expected <- assign_guides(screen$counts, "poisson", batch = number)
  expect_identical(expected$params$batches, c("1", "2", "3"))
  expect_true(all(c("gamma_1", "gamma_2", "gamma_3") %in% names(expected$fits)))
  same <- list(as.character(number), factor(number, levels = 0:9), as.double(number), stats::setNames(number, colnames(screen$counts)))
  for (batch in same) expect_identical(assign_guides(screen$counts, "poisson", batch = batch), expected)
  expect_identical(assign_guides(screen$counts, "poisson", batch = number == 1)$params$batches, c("FALSE", "TRUE"))
  # One batch is no batch.
  one <- assign_guides(screen$counts, "poisson", batch = rep("x", ncol(screen$counts)))
  expect_identical(one$cells, assign_guides(screen$counts, "poisson")$cells)
  expect_false(any(startsWith(names(one$fits), "gamma_")))
  # One fit per batch, in their order.
  expect_identical(assign_guides(screen$counts, "beta2", batch = screen$batch)$fits$batch, c("a", "b", "c"))
})

test_that("arguments that are wrong say so", {
  counts <- small_screen()$counts
  expect_snapshot({
    error_text("argument", assign_guides(counts, min_confidense = 0.9))
    error_text("argument", assign_guides(counts, "umi", 0.9))
    error_text("argument", assign_guides(counts, min_confidence = 1.5))
    error_text("argument", assign_guides(counts, min_confidence = -0.1))
    error_text("argument", assign_guides(counts, min_confidence = NA))
    error_text("argument", assign_guides(counts, min_confidence = NaN))
    error_text("argument", assign_guides(counts, min_confidence = "0.9"))
    error_text("argument", assign_guides(counts, min_confidence = c(0.8, 0.9)))
    error_text("argument", assign_guides(counts, "umi", min_confidence = 0.9))
    error_text("argument", assign_guides(counts, "ratio", min_confidence = 0.9))
    error_text("argument", assign_guides(counts, "max", min_confidence = 0.9))
    error_text("argument", assign_guides(counts, quantile = 0.1))
    error_text("argument", assign_guides(counts, "umi", quantile = 0.1))
    error_text("argument", assign_guides(counts, "quantiles", quantile = 2))
    error_text("argument", assign_guides(counts, "quantiles", quantile = 0.1, min_confidence = 0.5))
    error_text("argument", assign_guides(counts, min_umi = -1))
    error_text("argument", assign_guides(counts, min_umi = NULL))
    error_text("argument", assign_guides(counts, n_jobs = 0))
    error_text("argument", assign_guides(counts, n_jobs = 1.5))
    error_text("argument", assign_guides(counts, n_jobs = "all"))
    error_text("argument", assign_guides(counts, control = list(starts = 3)))
    error_text("argument", assign_guides(counts, modality = "GDO"))
    error_text("argument", assign_guides(counts, layer = "counts"))
  })
})

test_that("arguments are checked before the work", {
  # A file that does not exist would be the next error.
  expect_error(assign_guides("absent.h5ad", min_umi = -1), class = "kaichi_error_argument")
  expect_error(assign_guides("absent.h5ad", "gaus"), class = "kaichi_error_model")
  expect_error(assign_guides("absent.h5ad", n_jobs = 0), class = "kaichi_error_argument")
})
