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

test_that("the ceiling is the F1 of the observer's pairs", {
  sim <- simulate_guides("shallow", n_cells = 1000)
  at <- Matrix::summary(sim$oracle)
  at <- at[at$x >= 0.5, ]
  called <- paste(colnames(sim$counts)[at$j], rownames(sim$counts)[at$i])
  f1 <- 2 * sum(called %in% pairs(sim$truth)) / (length(called) + nrow(sim$truth))
  expect_equal(sim$ceiling, f1)
  expect_gt(f1, 0.7)
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
    n_cells = 60, n_guides = 10, moi = 2, selected = FALSE, hopping = 0.1, ambient_size = Inf, lane_depth = c(1, 2), dual = TRUE
  )
  expect_identical(
    sim$params[c("moi", "selected", "hopping", "ambient_size", "lane_depth", "dual")],
    list(moi = 2, selected = FALSE, hopping = 0.1, ambient_size = Inf, lane_depth = c(1, 2), dual = TRUE)
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
    error_text(simulate_guides(seed = -1))
  )
  expect_snapshot(writeLines(texts))
})

test_that("print says what was drawn", {
  expect_snapshot(simulate_guides("batch_shift", n_cells = 300, n_guides = 10))
})
