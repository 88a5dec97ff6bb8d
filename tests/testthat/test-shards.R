# Wherever the guides are fitted, the result is that of this session, bit for bit.
path <- test_path("fixtures", "anndata-0.12.19-csc.h5ad")

# Two workers of each kind for all tests, as a new R takes seconds to start. The end of this file stops them.
started <- new.env()
back_ends <- function() {
  skip_if_not_installed("BiocParallel")
  if (is.null(started$all)) {
    kinds <- list(
      SerialParam = BiocParallel::SerialParam(),
      SnowParam = BiocParallel::SnowParam(2),
      MulticoreParam = if (.Platform$OS.type == "unix") BiocParallel::MulticoreParam(2)
    )
    started$all <- lapply(Filter(Negate(is.null), kinds), BiocParallel::bpstart)
  }
  started$all
}

test_that("matrices give the same on every back end, for every model, with batches", {
  screen <- small_screen()
  for (kind in names(back_ends())) {
    for (model in two_stage_models()) {
      label <- paste(kind, model)
      alone <- score_guides(screen$counts, model, batch = screen$batch)
      expect_identical(score_guides(screen$counts, model, batch = screen$batch, BPPARAM = back_ends()[[kind]]), alone, label = label)
    }
    for (model in all_models()) {
      expect_identical(
        assign_guides(screen$counts, model, BPPARAM = back_ends()[[kind]]), assign_guides(screen$counts, model),
        label = paste(kind, model)
      )
    }
  }
})

test_that("files give the same on every back end, for every model, with batches", {
  # The folder of a worker may be another one.
  from <- getwd()
  on.exit(setwd(from))
  setwd(dirname(path))
  file <- basename(path)
  bundled <- system.file("extdata", "guides.h5ad", package = "kaichi")
  for (kind in names(back_ends())) {
    for (model in two_stage_models()) {
      label <- paste(kind, model)
      expect_identical(
        score_guides(file, model, batch = "lane", BPPARAM = back_ends()[[kind]]), score_guides(file, model, batch = "lane"),
        label = label
      )
      if (model == "ambient") next
      expect_identical(score_guides(bundled, model, BPPARAM = back_ends()[[kind]]), score_guides(bundled, model), label = label)
    }
  }
})

test_that("containers give the same", {
  skip_if_not_installed("SingleCellExperiment")
  sce <- SingleCellExperiment::SingleCellExperiment(list(counts = small_screen()$counts), mainExpName = "guides")
  assign <- function(...) suppressMessages(assign_guides(sce, ...))
  expect_identical(assign(BPPARAM = back_ends()$SerialParam), assign())
})

test_that("batchtools, which writes its jobs to files, gives the same", {
  skip_if_not_installed("BiocParallel")
  skip_if_not_installed("batchtools")
  screen <- small_screen()
  # In another session, as batchtools leaves testthat at a loss which test it runs.
  there <- function(k, screen) {
    param <- BiocParallel::BatchtoolsParam(2, cluster = "interactive")
    kaichi::score_guides(screen$counts, "poisson", batch = screen$batch, BPPARAM = param)
  }
  environment(there) <- globalenv()
  got <- BiocParallel::bplapply(1, there, screen = screen, BPPARAM = back_ends()$SnowParam)[[1L]]
  expect_identical(got, score_guides(screen$counts, "poisson", batch = screen$batch))
})

test_that("the seed of the session is not touched, nor the counts", {
  screen <- small_screen()
  before <- serialize(screen, NULL)
  with_fixed_seed(1, {
    seed <- .Random.seed
    for (param in back_ends()) score_guides(screen$counts, BPPARAM = param)
    expect_identical(.Random.seed, seed)
  })
  expect_identical(serialize(screen, NULL), before)
})

test_that("a forked session scores as its parent", {
  skip_on_os("windows")
  counts <- small_screen()$counts
  alone <- score_guides(counts, "poisson")
  forked <- parallel::mclapply(1:2, function(k) score_guides(counts, "poisson", n_jobs = 2), mc.cores = 2L)
  expect_identical(forked, list(alone, alone))
  of_file <- parallel::mclapply(1:2, function(k) score_guides(path, n_jobs = 2), mc.cores = 2L)
  expect_identical(of_file[[2L]], score_guides(path))
})

test_that("shards are all guides, in order, each once, of about equal cost", {
  counts <- small_screen()$counts
  for (n_workers in c(1:12, 1000)) {
    ranges <- shard_guides(counts, n_workers)
    expect_lte(length(ranges), min(n_workers, nrow(counts)))
    expect_identical(unlist(lapply(ranges, function(r) seq(r[1L], r[2L]))), seq_len(nrow(counts)))
  }
  even <- shard_guides(as_counts(diag(100)), 4)
  expect_identical(even, list(c(1L, 25L), c(26L, 50L), c(51L, 75L), c(76L, 100L)))
  # A guide in ten times as many cells as all others together takes a worker nearly by itself.
  one_large <- as_counts(rbind(matrix(1, 1L, 900L), cbind(diag(90), matrix(0, 90L, 810L))))
  expect_lt(shard_guides(one_large, 2)[[1L]][2L], 10L)
  expect_identical(shard_guides(as_counts(matrix(0, 3L, 2L)), 3), list(c(1L, 1L), c(2L, 2L), c(3L, 3L)))
})

test_that("a shard holds the rows, and the depth of all guides", {
  counts <- small_screen()$counts
  shard <- take_shard(counts, c(3L, 7L), find_model("poisson"), 1)
  expect_identical(as.matrix(shard$counts), unname(as.matrix(counts)[3:7, ]))
  expect_identical(shard$depth, unname(Matrix::colSums(counts)))
  expect_null(take_shard(counts, c(3L, 7L), find_model("gauss"), 1)$depth)
})

test_that("errors of a worker have their class in the session", {
  counts <- small_screen()$counts
  got <- list(counts = read_guides(path))
  missing <- list(path = file.path(tempdir(), "gone.h5ad"), layer = NULL)
  for (param in back_ends()) {
    score <- function(file) score_shards(got, find_model("gauss"), NULL, model_control(), param, file)
    expect_error(score(missing), "gone.h5ad", class = "kaichi_error_file")
    expect_error(score(list(path = normalizePath(path), layer = "none")), class = "kaichi_error_format")
  }
  expect_error(
    score_shards(
      list(counts = counts), find_model("gauss"), NULL, model_control(), back_ends()$SnowParam,
      shard_file(path, NULL)
    ),
    "has changed", class = "kaichi_error_file"
  )
  # A worker that breaks down in another way.
  expect_error(
    score_shards(list(counts = counts), find_model("gauss"), NULL, sum, back_ends()$SnowParam, NULL),
    "A worker of `BPPARAM` failed", class = "kaichi_error_worker"
  )
  of_version <- score_shard(NULL, list(version = "0.0.1"))
  expect_s3_class(of_version, "kaichi_error_worker")
  expect_match(conditionMessage(of_version), "this session 0.0.1")
})

test_that("a BPPARAM that is none says so", {
  counts <- small_screen()$counts
  expect_snapshot({
    error_text("argument", score_guides(counts, BPPARAM = 4))
    error_text("argument", score_guides(counts, "ambient", BPPARAM = "slurm"))
    error_text("argument", assign_guides(counts, "umi", BPPARAM = list(2)))
  })
  # With BiocParallel hidden.
  hide <- function(f, ...) {
    environment(f) <- list2env(list(...), parent = environment(f))
    f
  }
  need <- hide(need_package, requireNamespace = function(...) FALSE)
  expect_snapshot(error_text("package", hide(check_bpparam, need_package = need)(counts)))
  skip_if_not_installed("BiocParallel")
  expect_snapshot(error_text("argument", score_guides(counts, BPPARAM = counts)))
})

for (param in started$all) BiocParallel::bpstop(param)
