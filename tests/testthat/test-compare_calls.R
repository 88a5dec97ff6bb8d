pair_sets <- function(...) lapply(list(...), function(calls) paste(calls$pairs$cell_barcode, calls$pairs$guide_id))

# Every number of a comparison by operations on sets of strings.
expect_comparison <- function(compared, sets) {
  names <- names(sets)
  any <- Reduce(union, sets)
  all <- Reduce(intersect, sets)
  cell_of <- function(pairs) sub(" .*", "", pairs)
  guide_of <- function(pairs) sub("^[^ ]* ", "", pairs)
  expect_identical(compared$sets$set, names)
  expect_equal(compared$sets$n_pairs, unname(lengths(sets)))
  expect_equal(compared$sets$n_cells, unname(vapply(sets, function(s) length(unique(cell_of(s))), 0L)))
  expect_equal(compared$sets$n_guides, unname(vapply(sets, function(s) length(unique(guide_of(s))), 0L)))
  expect_identical(dimnames(compared$jaccard), list(names, names))
  for (k in seq_len(nrow(compared$pairs))) {
    row <- compared$pairs[k, ]
    a <- sets[[row$a]]
    b <- sets[[row$b]]
    jaccard <- length(intersect(a, b)) / length(union(a, b))
    expect_equal(c(row$n_a, row$n_b, row$n_both), c(length(a), length(b), length(intersect(a, b))))
    expect_equal(row$jaccard, jaccard)
    expect_equal(compared$jaccard[c(row$a, row$b), c(row$b, row$a)], rbind(c(jaccard, 1), c(1, jaccard)), ignore_attr = TRUE)
    expect_equal(row$n_cells_differ, length(unique(cell_of(c(setdiff(a, b), setdiff(b, a))))))
  }
  expect_equal(nrow(compared$pairs), choose(length(sets), 2))
  for (what in c("guides", "cells")) {
    rows <- compared[[what]]
    of <- if (what == "guides") guide_of else cell_of
    expect_setequal(rows[[1L]], of(any))
    for (name in names) expect_equal(rows[[name]], vapply(rows[[1L]], function(id) sum(of(sets[[name]]) == id), 0L, USE.NAMES = FALSE))
    expect_equal(rows$n_any, vapply(rows[[1L]], function(id) sum(of(any) == id), 0L, USE.NAMES = FALSE))
    expect_equal(rows$n_all, vapply(rows[[1L]], function(id) sum(of(all) == id), 0L, USE.NAMES = FALSE))
  }
  expect_identical(compared$guides$jaccard, compared$guides$n_all / compared$guides$n_any)
  expect_false(is.unsorted(compared$guides$jaccard))
  expect_identical(compared$cells$agree, !compared$cells$cell_barcode %in% cell_of(setdiff(any, all)))
  differ <- paste(compared$differ$cell_barcode, compared$differ$guide_id)
  expect_setequal(differ, setdiff(any, all))
  expect_identical(anyDuplicated(differ), 0L)
  for (name in names) expect_identical(compared$differ[[name]], differ %in% sets[[name]])
}

test_that("models are compared as sets of pairs", {
  screen <- small_screen()
  models <- c("umi", "max", "poisson", "beta2")
  compared <- compare_models(screen$counts, models, batch = screen$batch)
  calls <- lapply(stats::setNames(nm = models), function(model) assign_guides(screen$counts, model, batch = screen$batch))
  expect_comparison(compared, do.call(pair_sets, calls))
  differ <- compared$differ
  expect_gt(nrow(differ), 10L)
  expect_equal(differ$umi_count, as.matrix(screen$counts)[cbind(differ$guide_id, differ$cell_barcode)])
  expect_equal(differ$cell_umis, unname(Matrix::colSums(screen$counts)[differ$cell_barcode]))
  expect_identical(compare_calls(umi = calls$umi, max = calls$max, poisson = calls$poisson, beta2 = calls$beta2), compared)
  expect_identical(compare_calls(calls$umi, calls$max, calls$poisson, calls$beta2), compared)
  expect_identical(
    compare_models(screen$counts, models[1:2], min_umi = 3)$sets$n_pairs[2L],
    nrow(assign_guides(screen$counts, "max", min_umi = 3)$pairs)
  )
})

test_that("all models, a covariate for those that take it, and a file", {
  path <- system.file("extdata", "guides.h5ad", package = "kaichi")
  compared <- compare_models(path, batch = "lane", covariate = rep(c(1, 2), 300))
  expect_identical(compared$sets$set, all_models())
  expect_identical(compared$sets$n_pairs[12L], nrow(assign_guides(path, "ambient", batch = "lane", covariate = rep(c(1, 2), 300))$pairs))
  skip_if_not_installed("ggplot2")
  plot <- plot_model_agreement(compared)
  expect_s3_class(ggplot2::ggplotGrob(plot), "gtable")
  tiles <- plot$data
  set_of <- function(label) sub(" .*", "", as.character(label))
  expect_equal(tiles$jaccard, compared$jaccard[cbind(set_of(tiles$y), set_of(tiles$x))])
  expect_equal(nrow(tiles), 144L)
  expect_s3_class(ggplot2::ggplotGrob(plot_model_agreement(compare_models(path, c("umi", "max")))), "gtable")
})

test_that("files of ours, of crispat and of Cell Ranger are sets of calls, and so are data.frames and objects", {
  calls <- awkward_calls()
  folder <- tempfile()
  dir.create(folder)
  csv <- file.path(folder, "calls.csv.gz")
  crispat <- file.path(folder, "assignments.csv")
  write_calls(calls, csv)
  write_calls(calls, crispat, format = "crispat")
  write_calls(calls, file.path(folder, "cellranger"))
  cellranger <- file.path(folder, "cellranger", "protospacer_calls_per_cell.csv")
  other <- awkward_calls(min_umi = 12)
  for (set in list(csv, crispat, cellranger, calls$pairs, utils::read.csv(crispat, encoding = "UTF-8"), calls$pairs[1:2])) {
    compared <- compare_calls(theirs = set, other = other)
    expect_comparison(compared, stats::setNames(pair_sets(calls, other), c("theirs", "other")))
    expect_equal(compared$differ$umi_count, as.matrix(calls$counts)[cbind(compared$differ$guide_id, compared$differ$cell_barcode)])
  }
  # Counts of a table where no set has more.
  tables <- compare_calls(crispat, other$pairs)
  expect_identical(tables$sets$set, c("assignments.csv", "set 2"))
  expect_equal(tables$differ$umi_count, as.matrix(calls$counts)[cbind(tables$differ$guide_id, tables$differ$cell_barcode)])
  expect_true(all(is.na(tables$differ$cell_umis)))
  skip_if_not_installed("SingleCellExperiment")
  expect_equal(compare_calls(object = as_sce(calls), calls = calls)$pairs$jaccard, 1)
})

test_that("cells are matched by barcode, and names that look like numbers stay names", {
  calls <- awkward_calls()
  bare <- calls$pairs
  bare$cell_barcode <- sub("-1$", "", bare$cell_barcode)
  expect_message(compared <- compare_calls(a = calls, b = bare), "matched without \"-1\"", class = "kaichi_message_choice")
  expect_equal(compared$pairs$jaccard, 1)
  expect_setequal(compared$cells$cell_barcode, unique(calls$pairs$cell_barcode))
  renamed <- transform(calls$pairs, cell_barcode = paste0("x", seq_along(unique(calls$pairs$cell_barcode)))[match(cell_barcode, unique(cell_barcode))])
  back <- stats::setNames(unique(calls$pairs$cell_barcode), unique(renamed$cell_barcode))
  expect_equal(compare_calls(a = calls, b = renamed, cells = function(cell) unname(back[cell]))$pairs$jaccard, 1)

  numbers <- data.frame(cell_barcode = c("007", "7", "1e3"), guide_id = c("01", "1", "1"))
  file <- tempfile(fileext = ".csv")
  utils::write.csv(numbers, file, row.names = FALSE)
  expect_equal(compare_calls(a = numbers, b = file)$pairs$jaccard, 1)
  expect_equal(compare_calls(a = numbers, b = numbers[c(1, 3), ])$differ$cell_barcode, "7")
})

test_that("sets without calls, and cells in one set only", {
  counts <- small_screen()$counts
  none <- assign_guides(counts, "umi", control = model_control(umi_threshold = 1e6))
  some <- assign_guides(counts, "umi")
  compared <- compare_calls(none = none, some = some, twice = none)
  expect_identical(compared$jaccard["none", "twice"], NaN)
  expect_identical(compared$jaccard["none", "some"], 0)
  expect_equal(nrow(compared$differ), nrow(some$pairs))
  half <- some$pairs[1:50, ]
  half$cell_barcode[50] <- "elsewhere"
  expect_comparison(
    compare_calls(some = some, half = half),
    list(some = pair_sets(some)[[1L]], half = paste(half$cell_barcode, half$guide_id))
  )
  skip_if_not_installed("ggplot2")
  expect_s3_class(ggplot2::ggplotGrob(plot_model_agreement(compared)), "gtable")
})

test_that("a comparison is printed", {
  expect_snapshot(compare_models(small_screen()$counts, c("umi", "max", "ratio")))
})

test_that("what is no set of calls is an error that says what to give", {
  calls <- awkward_calls()
  file <- tempfile("calls", fileext = ".csv")
  writeLines(c("barcode,umis", "A,1"), file)
  double <- calls$pairs[c(1, 1, 2), ]
  expect_snapshot({
    error_text("argument", compare_calls(calls))
    error_text("argument", compare_calls(a = calls, b = 3))
    error_text("argument", compare_calls(a = calls, a = calls))
    error_text("file", compare_calls(calls, "no-such-file.csv"))
    error_text("format", compare_calls(calls, theirs = file))
    error_text("format", compare_calls(calls, theirs = double))
    error_text("names", compare_calls(calls, theirs = transform(calls$pairs, cell_barcode = paste0("x", cell_barcode, "y"))))
    error_text("names", compare_calls(calls, theirs = transform(calls$pairs, guide_id = paste0("x", guide_id))))
    error_text("argument", compare_models(small_screen()$counts, "umi"))
    error_text("argument", compare_models(small_screen()$counts, c("umi", "umi")))
    error_text("model", compare_models(small_screen()$counts, c("umi", "gaus")))
    error_text("argument", compare_models(small_screen()$counts, c("umi", "max"), mini_umi = 2))
    error_text("argument", compare_models(small_screen()$counts, c("umi", "max"), covariate = rep(1, 300)))
  })
})

test_that("the published calls of crispat's authors are compared as sets", {
  path <- schraivogel("gRNA_counts.h5ad")
  theirs <- utils::read.csv(schraivogel("crispat_calls.csv.gz"), stringsAsFactors = FALSE)
  sets <- lapply(c(umi = "umi_t5", gauss = "gauss", max = "max"), function(model) {
    unique(stats::setNames(theirs[theirs$model == model, c("cell", "guide")], c("cell", "gRNA")))
  })
  ours <- assign_guides(path, "gauss")
  compared <- compare_calls(ours = ours, umi = sets$umi, gauss = sets$gauss, max = sets$max)
  strings <- c(list(ours = pair_sets(ours)[[1L]]), lapply(sets, function(set) paste(set$cell, set$gRNA)))
  for (k in seq_len(nrow(compared$pairs))) {
    a <- strings[[compared$pairs$a[k]]]
    b <- strings[[compared$pairs$b[k]]]
    expect_equal(compared$pairs$jaccard[k], length(intersect(a, b)) / length(union(a, b)))
  }
  expect_gt(compared$jaccard["ours", "gauss"], 0.99)
})
