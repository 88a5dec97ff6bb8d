error_text <- function(code) {
  condition <- tryCatch(code, kaichi_error = identity)
  paste0("<", class(condition)[1L], "> ", conditionMessage(condition))
}
pairs <- function(x) paste(x$cell_barcode, x$guide_id)

test_that("a simulation is counts that the verbs take, with its truth", {
  sim <- simulate_guides("noisy", n_cells = 400, n_guides = 30)
  expect_s3_class(sim, "guide_simulation")
  expect_s4_class(sim$counts, "dgCMatrix")
  expect_true(methods::validObject(sim$counts))
  expect_identical(dim(sim$counts), c(30L, 400L))
  expect_identical(dimnames(sim$counts)[[1L]][c(1L, 30L)], c("guide_01", "guide_30"))
  expect_identical(sim$cells$cell_barcode, colnames(sim$counts))
  expect_identical(sim$oracle@i, sim$counts@i)
  expect_identical(sim$oracle@p, sim$counts@p)
  expect_true(all(sim$oracle@x >= 0 & sim$oracle@x <= 1))
  expect_true(all(sim$truth$guide_id %in% rownames(sim$counts)))
  expect_identical(anyDuplicated(sim$truth), 0L)
  expect_s3_class(assign_guides(sim$counts, model = "umi", batch = sim$lane), "guide_calls")
})

called_at <- function(sim, cut) {
  at <- Matrix::summary(sim$oracle)
  at <- at[at$x >= cut, ]
  paste(colnames(sim$counts)[at$j], rownames(sim$counts)[at$i])
}
f1_of <- function(sim, called) 2 * sum(called %in% pairs(sim$truth)) / (length(called) + nrow(sim$truth))

test_that("the ceiling is the F1 of the observer's pairs at the best cut", {
  sim <- simulate_guides("shallow", n_cells = 1000)
  expect_equal(sim$ceiling, f1_of(sim, called_at(sim, sim$ceiling_cut)))
  expect_gt(sim$ceiling, 0.7)
  for (cut in c(0, 0.1, 0.3, 0.5, 0.9)) expect_gte(sim$ceiling, f1_of(sim, called_at(sim, cut)))
})

test_that("no threshold of counts beats the ceiling by more than chance", {
  old <- RNGkind("Mersenne-Twister", "Inversion", "Rejection")
  on.exit(do.call(RNGkind, as.list(old)))
  set.seed(20)
  for (round in 1:25) {
    sim <- simulate_guides(
      n_cells = 1500, n_guides = sample(c(1, 2, 10), 1), moi = exp(runif(1, log(0.2), log(8))), selected = FALSE,
      signal_mean = exp(runif(1, log(2), log(60))), signal_size = exp(runif(1, log(0.3), log(10))),
      ambient_mean = exp(runif(1, log(0.05), log(20))), capture_gamma = round %% 2 == 0, hopping = sample(c(0, 0.1), 1),
      hopping_burst = sample(c(0, 3), 1), min_depth = sample(c(0, 5), 1), ambient_library = round %% 3 == 0, seed = round
    )
    at <- Matrix::summary(sim$counts)
    key <- paste(colnames(sim$counts)[at$j], rownames(sim$counts)[at$i])
    expect_gt(nrow(sim$truth), 50L)
    expect_gt(length(key), 50L)
    expect_lte(sim$ceiling, 1)
    expect_lte(f1_of(sim, key), sim$ceiling + 1e-12)
    for (least in 2:30) expect_lte(f1_of(sim, key[at$x >= least]), sim$ceiling + 0.005)
  }
})

test_that("the gamma captures and the bursts have the stated variance", {
  capture <- function(...) simulate_guides(n_cells = 20000, n_guides = 2, capture_spread = 0.6, ...)$cells$capture
  for (captures in list(capture(), capture(capture_gamma = TRUE))) {
    expect_equal(mean(captures), 1, tolerance = 0.03)
    expect_equal(var(captures), exp(0.36) - 1, tolerance = 0.15)
  }
  # A gamma variable has more very small values than a log-normal one.
  expect_gt(mean(capture(capture_gamma = TRUE) < 0.1), 2 * mean(capture() < 0.1))

  for (burst in c(0, 2)) {
    # Without ambient UMIs, what a cell has of guides that it does not carry is chimeric.
    sim <- simulate_guides(
      n_cells = 20000, n_guides = 20, moi = NA, ambient_mean = 0, hopping = 0.2, hopping_burst = burst, efficiency_spread = 0,
      abundance_spread = 0, capture_spread = 0, signal_size = Inf
    )
    carried <- match(sim$truth$guide_id, rownames(sim$counts))
    other <- ifelse(carried == 1, 2, 1)
    counts <- sim$counts[cbind(other, match(sim$truth$cell_barcode, colnames(sim$counts)))]
    expect_gt(sum(counts > 0), 1000L)
    expect_equal(mean(counts), mean(sim$cells$chimeric) / 20, tolerance = 0.1)
    expect_equal(var(counts) / mean(counts), 1 + burst, tolerance = 0.1)
  }
})

test_that("the ambient shares follow the library if asked", {
  sim <- simulate_guides(n_cells = 100, efficiency_spread = 1, ambient_guide_spread = 0, ambient_library = TRUE)
  expect_equal(sim$guides$ambient_share, sim$guides$library_share)
  expect_identical(simulate_guides(n_cells = 100, efficiency_spread = 1, ambient_guide_spread = 0)$guides$efficiency, sim$guides$efficiency)
})

test_that("cells are chosen by their depth, and their number is kept", {
  sim <- simulate_guides("shallow", n_cells = 700, n_guides = 10, min_depth = 6, lane_cells = c(1, 6))
  expect_identical(dim(sim$counts), c(10L, 700L))
  expect_gte(min(Matrix::colSums(sim$counts)), 6)
  expect_identical(as.vector(table(sim$lane)), c(100L, 600L))
  expect_error(simulate_guides(n_cells = 5, min_depth = 1e6), "min_depth", class = "kaichi_error_argument")
})

test_that("empty droplets follow the cells, carry nothing and change no cell", {
  cells <- simulate_guides("noisy", n_cells = 500, n_guides = 30)
  sim <- simulate_guides("noisy", n_cells = 500, n_guides = 30, n_empty_droplets = 2000, droplet_ambient = 0.1)
  expect_identical(sim$counts[, 1:500], cells$counts)
  expect_identical(sim$truth, cells$truth)
  expect_identical(sim$ceiling, cells$ceiling)
  expect_identical(sim$cells$is_cell, rep(c(TRUE, FALSE), c(500, 2000)))
  expect_identical(colnames(sim$counts)[c(501, 2500)], c("empty_0001", "empty_2000"))
  depth <- Matrix::colSums(sim$counts[, -(1:500)])
  expect_gt(sum(depth > 0), 200L)
  expect_equal(mean(depth), 0.1 * 6, tolerance = 0.15)
  expect_identical(max(sim$oracle[, -(1:500)]), 0)
  expect_output(print(sim), "500 cells and 2,000 empty droplets")
})

test_that("a guide of a single cell is a pair like any other", {
  sim <- simulate_guides(n_cells = 200, n_guides = 3000)
  single <- names(which(table(sim$truth$guide_id) == 1L))
  expect_gt(length(single), 100L)
  found <- called_at(sim, sim$ceiling_cut)
  expect_gt(mean(pairs(sim$truth)[sim$truth$guide_id %in% single] %in% found), 0.9)
})

test_that("the seed fixes the screen, on any number of threads, and R's random numbers stay where they are", {
  set.seed(1)
  before <- .Random.seed
  one <- simulate_guides("noisy", n_cells = 5000, n_guides = 20, seed = 7, n_jobs = 1)
  expect_identical(.Random.seed, before)
  expect_identical(simulate_guides("noisy", n_cells = 5000, n_guides = 20, seed = 7, n_jobs = 2), one)
  expect_false(identical(simulate_guides("noisy", n_cells = 5000, n_guides = 20, seed = 8)$counts, one$counts))
})

test_that("every parameter can be given by name and comes back", {
  screens <- guide_screens()
  expect_identical(screens$screen, c(
    "easy", "noisy", "high_moi", "overdispersed", "shallow", "deep_ambient", "batch_shift", "dual_guide"
  ))
  sim <- simulate_guides(
    n_cells = 60, n_guides = 10, moi = 2, selected = FALSE, hopping = 0.1, ambient_size = Inf, lane_depth = c(1, 2), dual = TRUE,
    capture_gamma = TRUE, ambient_library = TRUE, hopping_burst = 1.5, min_depth = 3, droplet_ambient = 0.2
  )
  expect_identical(
    sim$params[c("moi", "selected", "hopping", "ambient_size", "lane_depth", "dual")],
    list(moi = 2, selected = FALSE, hopping = 0.1, ambient_size = Inf, lane_depth = c(1, 2), dual = TRUE)
  )
  expect_identical(
    sim$params[c("capture_gamma", "ambient_library", "hopping_burst", "min_depth", "droplet_ambient", "n_empty_droplets")],
    list(
      capture_gamma = TRUE, ambient_library = TRUE, hopping_burst = 1.5, min_depth = 3, droplet_ambient = 0.2,
      n_empty_droplets = 0
    )
  )
  expect_setequal(setdiff(names(sim$params), "seed"), setdiff(names(screens), "about"))
  expect_identical(as.vector(table(sim$lane)), c(30L, 30L))
  expect_identical(as.vector(table(sim$guides$construct)), rep(2L, 5L))
})

test_that("moi = NA gives every cell one guide, a dual construct two", {
  one <- simulate_guides(n_cells = 200, moi = NA)
  expect_identical(one$truth$cell_barcode, colnames(one$counts))
  expect_identical(one$params$moi, NA_real_)
  two <- simulate_guides("dual_guide", n_cells = 200, moi = NA, recombined = 0)
  construct <- two$guides$construct[match(two$truth$guide_id, two$guides$guide_id)]
  expect_identical(two$truth$cell_barcode, rep(colnames(two$counts), each = 2L))
  expect_identical(construct[c(TRUE, FALSE)], construct[c(FALSE, TRUE)])
})

test_that("a bad argument is an error that names it", {
  expect_error(simulate_guides("hard"), class = "kaichi_error_argument")
  texts <- c(
    error_text(simulate_guides("hard")),
    error_text(simulate_guides(c("easy", "noisy"))),
    error_text(simulate_guides(hoping = 0.1)),
    error_text(simulate_guides(hopping = 1)),
    error_text(simulate_guides(moi = "five")),
    error_text(simulate_guides(signal_mean = NA)),
    error_text(simulate_guides("easy", 100, 10, 5)),
    error_text(simulate_guides(n_cells = 2.5)),
    error_text(simulate_guides(signal_size = 0)),
    error_text(simulate_guides("batch_shift", lane_depth = c(1, 2))),
    error_text(simulate_guides("dual_guide", n_guides = 7)),
    error_text(simulate_guides(seed = -1)),
    error_text(simulate_guides(min_depth = 2.5)),
    error_text(simulate_guides(n_cells = 1, min_depth = 1e6)),
    error_text(simulate_guides(hopping_burst = -1)),
    error_text(simulate_guides(capture_gamma = 3)),
    error_text(simulate_guides(lane_cells = c(1, 0))),
    error_text(simulate_guides(n_empty_droplets = -1)),
    error_text(simulate_guides(droplet_ambient = -1))
  )
  expect_snapshot(writeLines(texts))
})

test_that("print says what was drawn", {
  expect_snapshot(simulate_guides("batch_shift", n_cells = 300, n_guides = 10))
})
